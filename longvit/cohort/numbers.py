"""Equality of numbers that rounding does not break."""

import numpy as np
import numpy.typing as npt

TIED_TOL = 1e-8
"""Numbers closer than this are tied, as in scikit-survival."""
ROUNDING = 1e-12
"""Share of a large number that rounding may change."""


def is_constant(values: npt.NDArray[np.float64]) -> bool:
    """Return whether all values are the same but for rounding."""
    return not len(values) or bool(np.ptp(values) <= tolerance(np.abs(values).max()))


def tolerance(size: float) -> float:
    """Return the difference up to which two numbers of this size are tied."""
    return max(TIED_TOL, ROUNDING * abs(float(size)))
