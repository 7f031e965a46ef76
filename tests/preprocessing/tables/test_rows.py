import gzip
from pathlib import Path

import pytest

from preprocessing.errors import CohortError
from preprocessing.tables.rows import read_cells


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("a,b\n1,2\n3,4,5\n", "a row of the table has 3 cells, more than the 2 of the header", 3),
        ("a,b\n1,2,\n", "a row of the table has 3 cells, more than the 2 of the header", 2),
        ("a;b;a\n1;2;3\n", "two columns have the same name: a", 1),
        ("a,a \n1,2\n", "two columns have the same name: a", 1),
        ("a,b\n1,2\n3,\0\n", "contains NUL", 3),
        (",".join("c" * 2 for _ in range(1_000_000)) + "\n1\n", "larger than 65,536 columns", 1),
    ],
    ids=["more cells", "comma at the end", "same name", "same name but for a space", "NUL", "a million columns"],
)
def test_what_cannot_be_read_is_refused_by_its_line(tmp_path, text, what, line):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(CohortError, match=what) as error:
        read_cells(tmp_path / "t.csv")
    assert str(error.value.where).endswith(f"line {line}")


def test_a_header_that_ends_in_a_comma_has_a_column_without_a_name(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,\n1,2,\n3,4\n")
    cells = read_cells(tmp_path / "t.csv")
    assert (cells.columns, cells.rows) == (["a", "b", ""], [["1", "2", ""], ["3", "4", ""]])


def test_the_noun_of_a_table_is_in_its_errors(tmp_path):
    (tmp_path / "t.csv").write_text("a\n")
    for name, what in (("t.csv", "the manifest has no rows"), ("u.csv", "does not exist"), (".", "is not a file")):
        with pytest.raises(CohortError, match=f"the manifest.*|{what}"):
            read_cells(tmp_path / name, "manifest")


def test_a_table_that_is_locked_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("a\n1\n")

    def locked(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(CohortError, match="cannot be read: Permission denied") as error:
        read_cells(tmp_path / "t.csv")
    assert "close the program" in error.value.fix


def test_a_packed_table_is_cut_and_decoded_as_a_plain_one(tmp_path):
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress("a;b\n1,5;ü\n".encode("cp1252")))
    cells = read_cells(tmp_path / "t.tsv.gz")
    assert (cells.rows, len(cells.notes)) == ([["1.5", "ü"]], 1)
