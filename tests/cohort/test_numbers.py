from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvit.cohort.numbers import exact_numbers, is_constant, tolerance


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


@pytest.mark.parametrize("value", [0.1, -2.2516, 1e12 / 3, 0.0])
def test_the_mean_of_equal_numbers_is_constant_although_it_is_rounded(value):
    means = np.array([np.mean([value] * n) for n in range(1, 60)])
    assert is_constant(means)
    assert is_constant(means[:0])
    assert not is_constant(means + np.linspace(0, 3 * tolerance(value), len(means)))
