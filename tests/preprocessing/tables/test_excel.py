import zipfile

import pytest

from preprocessing.errors import CohortError
from preprocessing.tables.rows import read_cells

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def workbook(path, **sheets):
    """An Excel file with a sheet of text cells for each name."""
    with zipfile.ZipFile(path, "w") as archive:
        listed = "".join(f'<sheet name="{name}" sheetId="{i}" r:id="r{i}"/>' for i, name in enumerate(sheets))
        archive.writestr("xl/workbook.xml", f'<workbook {MAIN} xmlns:r="{OFFICE}"><sheets>{listed}</sheets></workbook>')
        related = "".join(f'<Relationship Id="r{i}" Target="worksheets/{i}.xml"/>' for i in range(len(sheets)))
        archive.writestr("xl/_rels/workbook.xml.rels", f"<Relationships>{related}</Relationships>")
        for i, text in enumerate(sheets.values()):
            rows = "".join(
                "<row>" + "".join(f'<c t="str"><v>{cell}</v></c>' for cell in line.split(",")) + "</row>"
                for line in text.splitlines()
            )
            archive.writestr(f"xl/worksheets/{i}.xml", f"<worksheet {MAIN}><sheetData>{rows}</sheetData></worksheet>")
    return path


def test_the_sheet_with_the_wanted_columns_is_read(tmp_path):
    path = workbook(tmp_path / "t.xlsx", Notes="about\nwords", Endpoints="Case_ID,PFI\nP,2", CDR="case_id,OS\nP,1")
    assert read_cells(path, wanted=("case_id", "OS")).rows == [["P", "1"]]
    assert read_cells(path, wanted=("case_id", "PFI")).rows == [["P", "2"]]
    assert read_cells(path).rows == [["words"]]
    assert read_cells(path, wanted=("nowhere",)).columns == ["about"]


def test_two_sheets_that_fit_are_refused_by_name(tmp_path):
    path = workbook(tmp_path / "t.xlsx", a="case_id,OS\nP,1", b="x\ny", c="case_id,OS\nP,0")
    with pytest.raises(CohortError, match="2 sheets of the Excel file have the columns: a, c"):
        read_cells(path, wanted=("case_id", "OS"))


def test_a_sheet_without_cells_is_passed_over(tmp_path):
    path = workbook(tmp_path / "t.xlsx", empty="", full="case_id\nP")
    assert read_cells(path, wanted=("case_id",)).rows == [["P"]]
    with pytest.raises(CohortError, match="the table is empty"):
        read_cells(path)


def test_a_workbook_without_sheets_is_refused(tmp_path):
    with pytest.raises(CohortError, match="the Excel file has no sheet"):
        read_cells(workbook(tmp_path / "t.xlsx"))


def test_an_old_excel_file_is_refused_with_the_fix(tmp_path):
    (tmp_path / "t.xls").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))
    with pytest.raises(CohortError, match="old or password-protected") as error:
        read_cells(tmp_path / "t.xls")
    assert ".xlsx" in error.value.fix
