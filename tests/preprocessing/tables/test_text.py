import pytest

from preprocessing.errors import CohortError
from preprocessing.tables.rows import read_cells
from preprocessing.tables.text import with_points

ROWS = [["A", "12.5", "Müller"], ["B", "3", ""]]
TABLE = "case_id;months;name\nA;12,5;Müller\nB;3;\n"
COMMAS = "case_id,months,name\nA,12.5,Müller\nB,3,\n"


def read(tmp_path, content, wanted=()):
    (tmp_path / "t.txt").write_bytes(content)
    return read_cells(tmp_path / "t.txt", wanted=wanted)


@pytest.mark.parametrize(
    "content",
    [
        COMMAS.encode(),
        TABLE.encode(),
        TABLE.replace(";", "\t").encode(),
        COMMAS.replace(",", ";").encode(),
        b"sep=;\r\n" + TABLE.encode(),
        b"SEP=\t\n" + TABLE.replace(";", "\t").encode(),
        b'"sep=,"\n' + COMMAS.encode(),
        COMMAS.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        b"\xfe\xff" + TABLE.encode("utf-16-be"),
        TABLE.encode("utf-16-le"),
        TABLE.encode("utf-16-be"),
        b"# made, by, hand\n#\n\n" + COMMAS.encode(),
        COMMAS.replace("A,", "  A\t,").replace("Müller", "Müller\u00a0").encode(),
    ],
    ids=[
        "commas", "semicolons", "tabs", "points and semicolons", "sep=;", "sep=tab", "quoted sep", "BOM", "UTF-16",
        "UTF-16 big", "UTF-16 without BOM", "UTF-16 big without BOM", "comments", "white space",
    ],
)  # fmt: skip
def test_every_form_of_a_table_gives_the_same_cells(tmp_path, content):
    cells = read(tmp_path, content)
    assert cells.columns == ["case_id", "months", "name"]
    assert cells.rows == ROWS
    assert cells.notes == ()


def test_windows_1252_is_read_and_said(tmp_path):
    cells = read(tmp_path, COMMAS.encode("cp1252"))
    assert cells.rows == ROWS
    assert cells.notes == ("is not UTF-8 and was read as Windows-1252 (cp1252)",)


def test_lines_are_counted_with_comments_the_separator_and_quoted_newlines(tmp_path):
    cells = read(tmp_path, b'sep=;\n# a\n\nx;y\n"1\n2";3\n\n4;5\n')
    assert (cells.header, cells.lines, cells.rows) == (4, [5, 8], [["1\n2", "3"], ["4", "5"]])


def test_the_five_lines_of_cbioportal_are_no_header(tmp_path):
    lines = ["#Patient Identifier\tOS", "#text\ttext", "#STRING\tNUMBER", "#1\t1", "PATIENT_ID\tOS_MONTHS", "P-1\t12.5"]
    cells = read(tmp_path, "\n".join(lines).encode(), ("PATIENT_ID", "OS"))
    assert (cells.columns, cells.rows, cells.header) == (["PATIENT_ID", "OS_MONTHS"], [["P-1", "12.5"]], 5)


@pytest.mark.parametrize(
    ("header", "columns"), [("#,train,val", ["", "train", "val"]), ("# train,val", ["train", "val"])]
)
def test_a_header_behind_a_hash_is_found_by_the_wanted_names(tmp_path, header, columns):
    cells = read(tmp_path, f"{header}\n{'0,' * (len(columns) - 2)}A,B\n".encode(), ("train", "val"))
    assert cells.columns == columns
    assert cells.rows[0][-2:] == ["A", "B"]


def test_delimiters_in_quotes_and_names_do_not_cut(tmp_path):
    assert read(tmp_path, b'"a;b;c;d",e\n1,2\n').columns == ["a;b;c;d", "e"]
    assert read(tmp_path, b"age, years;id\n7;x\n").columns == ["age, years", "id"]
    assert read(tmp_path, b"id\nx\n").rows == [["x"]]


def test_points_replace_the_commas_of_numbers_only():
    for column, expected in [
        (["12,5", "", "3"], ["12.5", "", "3"]),
        (["-0,500"], ["-0.500"]),
        (["1,234", "12,345"], ["1,234", "12,345"]),  # thousands or three decimals
        (["1,234", "1,5"], ["1.234", "1.5"]),
        (["1,5", "a"], ["1,5", "a"]),
        (["1,5", "1.5"], ["1,5", "1.5"]),
        (["1,234,567"], ["1,234,567"]),
    ]:
        assert list(with_points(column)) == expected


def test_a_comment_without_end_is_no_table(tmp_path):
    with pytest.raises(CohortError, match="the table is empty"):
        read(tmp_path, b"# a\n" * 10)
    with pytest.raises(CohortError, match="field larger than field limit"):
        read(tmp_path, b"# a\n" + b"x" * 200_000 + b",b\n1,2\n", ("b",))
