import numpy as np
import pytest

from longvit.cohort.numbers import is_constant, tolerance


@pytest.mark.parametrize("value", [0.1, -2.2516, 1e12 / 3, 0.0])
def test_the_mean_of_equal_numbers_is_constant_although_it_is_rounded(value):
    means = np.array([np.mean([value] * n) for n in range(1, 60)])
    assert is_constant(means)
    assert is_constant(means[:0])
    assert not is_constant(means + np.linspace(0, 3 * tolerance(value), len(means)))
