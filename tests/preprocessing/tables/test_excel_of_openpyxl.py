"""Law: a workbook that another library has written is read as that library reads it, sheet by sheet."""

import datetime

import openpyxl
import pytest

from preprocessing.errors import CohortError
from preprocessing.tables.rows import read_cells

ROWS = [
    ["bcr_patient_barcode", "OS.time", "alive", "x"],
    ["TCGA-05-4249", 1523, True, "a, b"],
    ["007", 1.5, False, " ü\n<&> "],
    ["#N/A", 1e-3, None, "=1+1"],
]


@pytest.fixture
def workbook(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "Notes"
    book.active.append(["made up"])
    sheet = book.create_sheet("TCGA-CDR")
    for row in ROWS:
        sheet.append(row)
    book["TCGA-CDR"]["D4"].data_type = "s"  # not a formula
    book.create_sheet("ExtraEndpoints").append(["bcr_patient_barcode", "PFI.1"])
    book.save(tmp_path / "book.xlsx")
    return tmp_path / "book.xlsx"


def test_the_sheet_with_the_wanted_columns_is_read(workbook):
    cells = read_cells(workbook, wanted=("bcr_patient_barcode", "OS.time"))
    assert cells.columns == ROWS[0]
    assert cells.rows == [
        ["TCGA-05-4249", "1523", "True", "a, b"],
        ["007", "1.5", "False", "ü\n<&>"],
        ["#N/A", "0.001", "", "=1+1"],
    ]
    assert cells.lines == [2, 3, 4]


def test_two_sheets_that_fit_alike_are_refused_by_name(workbook):
    with pytest.raises(CohortError, match="2 sheets of the Excel file have the columns: TCGA-CDR, ExtraEndpoints"):
        read_cells(workbook, wanted=("bcr_patient_barcode",))


def test_a_date_is_the_day_number_that_excel_stores(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["case_id", "born"])
    book.active.append(["A", datetime.date(1970, 1, 1)])
    book.save(tmp_path / "d.xlsx")
    assert read_cells(tmp_path / "d.xlsx").rows == [["A", "25569"]]
