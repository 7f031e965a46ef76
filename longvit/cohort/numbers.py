"""Comparison of numbers up to rounding."""

import numpy as np
import numpy.typing as npt

TIED_TOL = 1e-8
"""Largest difference of tied numbers, as in scikit-survival."""
ROUNDING = 1e-12
"""Relative error that rounding may cause in a large number."""


def is_constant(values: npt.NDArray[np.float64]) -> bool:
    """Return whether all values are equal up to rounding."""
    return not len(values) or bool(np.ptp(values) <= tolerance(np.abs(values).max()))


def tolerance(size: float) -> float:
    """Return the difference up to which two numbers of this size are tied."""
    return max(TIED_TOL, ROUNDING * abs(float(size)))
