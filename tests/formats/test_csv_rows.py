import csv
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvit.formats.csv_rows import Bounds, bounded_rows, exact_numbers, string_table, write_rows
from preprocessing.errors import CohortError

BOUNDS = Bounds(1000, 3, "the rows have", "give a CSV file", "give fewer rows")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_written_with_all_digits_are_read_to_the_last_bit(numbers):
    assert exact_numbers(pd.Series([repr(number) for number in numbers])).tolist() == numbers


def test_numbers_that_pandas_rounds_wrongly_are_the_nearest():
    text = [f"0.{digits}" for digits in np.random.default_rng(0).integers(10**16, 10**17, 3000)]
    found = exact_numbers(pd.Series(text))
    pandas = pd.to_numeric(pd.Series(text))
    wrong = [i for i in range(3000) if found[i] != pandas[i]]
    assert wrong  # else the library was corrected, and this function can go
    for i in wrong:
        assert abs(Decimal(found[i]) - Decimal(text[i])) < abs(Decimal(float(pandas[i])) - Decimal(text[i]))


@pytest.mark.parametrize(
    "text", ["", "x", "1_0", "nan", "inf", "-Infinity", "1e400", "1,5", "\u0661", None, float("nan")]
)
def test_other_text_is_no_number(text):
    assert exact_numbers(pd.Series([text], dtype=object)).isna().all()


def test_spaces_and_signs_are_read():
    assert exact_numbers(pd.Series([" 1.50 ", "+2", "-3e-1", ".5", "7."])).tolist() == [1.5, 2, -0.3, 0.5, 7]


def test_rows_of_different_columns_become_one_table(tmp_path):
    write_rows(tmp_path / "rows.csv", [{"a": 1, "b": 2}, {"a": 3, "c": "x, y"}])
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "2", "c": ""}, {"a": "3", "b": "", "c": "x, y"}]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    rows = bounded_rows(b'a,b\n\n1,"x\ny"\n2,z\n', tmp_path, BOUNDS)
    assert next(rows) == (1, ["a", "b"])
    assert list(string_table(rows, ["a", "b"], {"b"}, tmp_path).itertuples(name=None)) == [(4, "x\ny"), (5, "z")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the rows have no rows"),
        (b"a\n", "the rows have no rows"),
        (b"a\n1\n2\n3\n4\n", "the rows have more than 3 rows"),
        (b"a,b,a\n1,2,3\n", "columns appear twice: a"),
        (b"a,b\n1\n", "a row does not have the 2 values"),
        (b"a,b\n1,2,3\n", "a row does not have the 2 values"),
        (b"a\n\xff\n", "the table is not a CSV file"),
    ],
)
def test_other_tables_are_refused(tmp_path, content, says):
    def read():
        rows = bounded_rows(content, tmp_path, BOUNDS)
        return string_table(rows, next(rows)[1], {"a"}, tmp_path)

    with pytest.raises(CohortError, match=says):
        read()
