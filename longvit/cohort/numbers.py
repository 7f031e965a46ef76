"""Numbers read from text exactly, and comparison of numbers up to rounding."""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

TIED_TOL = 1e-8
"""Largest difference of tied numbers, as in scikit-survival."""
ROUNDING = 1e-12
"""Relative error that rounding may cause in a large number."""


def exact_numbers(text: pd.Series) -> pd.Series:
    """Return the float nearest to each decimal number; NaN for any other text.

    `pandas.to_numeric` and `read_csv` are wrong in the last bit of some numbers, so that ties appear and vanish.
    """
    return text.map(_exact).astype(float)


def is_constant(values: npt.NDArray[np.float64]) -> bool:
    """Return whether all values are equal up to rounding."""
    return not len(values) or bool(np.ptp(values) <= tolerance(np.abs(values).max()))


def tolerance(size: float) -> float:
    """Return the difference up to which two numbers of this size are tied."""
    return max(TIED_TOL, ROUNDING * abs(float(size)))


def _exact(text: object) -> float:
    try:
        number = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    decimal = math.isfinite(number) and str(text).isascii() and "_" not in str(text)
    return number if decimal else math.nan
