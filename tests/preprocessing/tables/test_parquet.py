import importlib
import sys

import pytest

from preprocessing.errors import CohortError
from preprocessing.tables.parquet import written
from preprocessing.tables.rows import read_cells


def test_a_parquet_file_without_pyarrow_is_refused_with_the_fix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(CohortError, match="read by pyarrow, which is not installed") as error:
        read_cells(tmp_path / "t.parquet")
    assert "pip install pyarrow" in error.value.fix


def test_values_are_written_as_in_csv():
    values = (None, float("nan"), 100.0, 12.5, 7, True, "NA", b"x", 1e300)
    assert [written(value) for value in values] == ["", "", "100", "12.5", "7", "True", "NA", "x", "1e+300"]


@pytest.fixture
def write(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), importlib.import_module("pyarrow.parquet")

    def one(**columns):
        parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    return one


def test_a_parquet_file_is_read_as_the_csv_is(write):
    cells = read_cells(write(case_id=["A ", None, "NA"], months=[100.0, 12.5, None]))
    assert (cells.columns, cells.rows) == (["case_id", "months"], [["A", "100"], ["", "12.5"], ["NA", ""]])
    assert cells.lines == [2, 3, 4]


def test_a_parquet_file_with_lists_or_cut_short_is_refused(write):
    with pytest.raises(CohortError, match="contain lists or columns: b"):
        read_cells(write(a=["A"], b=[[1, 2]]))
    path = write(a=["A"])
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(CohortError, match="the Parquet file cannot be read"):
        read_cells(path)


def test_a_parquet_file_larger_than_the_bounds_is_refused_before_it_is_read(write, monkeypatch):
    monkeypatch.setattr("preprocessing.tables.rows.MAX_CELLS", 5)
    with pytest.raises(CohortError, match="larger than 5 cells"):
        read_cells(write(a=list("abcdef")))
