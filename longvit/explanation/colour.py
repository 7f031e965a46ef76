"""Colours of scores that colour-blind people can distinguish, in even steps, and their scale."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import Colormap, Normalize, to_hex

DIVERGING: Colormap = colormaps["coolwarm"]
"""For signed scores: red is evidence for, blue against, grey neutral (Moreland 2009; steps of equal size)."""
SEQUENTIAL: Colormap = colormaps["viridis"]
"""For scores that are shares: dark is low, yellow is high."""
CLIPPED = 0.01
"""Share of the scores at each end that may be off the scale, so that a single token does not pale all others."""
STOPS = 17
"""Number of colours that represent a scale in a file; readers interpolate between them."""


@dataclass(frozen=True)
class ColourScale:
    """Mapping from scores to colours."""

    vmin: float
    """Score of the first colour; lower scores also get this colour."""
    vmax: float
    """Score of the last colour; higher scores also get this colour."""
    colours: Colormap
    """Colours in order."""

    @classmethod
    def of(cls, scores: Float[np.ndarray, "..."], signed: bool) -> "ColourScale":
        """Return the scale that fits these scores (NaN: no token); for signed scores it is symmetric about 0."""
        if signed:
            most = float(np.nanquantile(np.abs(scores), 1 - CLIPPED)) or 1.0
            return cls(-most, most, DIVERGING)
        low, high = (float(x) for x in np.nanquantile(scores, (CLIPPED, 1 - CLIPPED)))
        return cls(low, high if high > low else low + 1.0, SEQUENTIAL)

    @property
    def norm(self) -> Normalize:
        """Map from scores to 0 to 1, in matplotlib's form."""
        return Normalize(self.vmin, self.vmax)

    def stops(self) -> list[str]:
        """Return the colours as `#rrggbb`, in even steps from `vmin` to `vmax`."""
        return [to_hex(self.colours(share)) for share in np.linspace(0, 1, STOPS)]


def ranked(scores: Float[np.ndarray, " L"], signed: bool) -> Float[np.ndarray, " L"]:
    """Return scores replaced by their ranks, so that each colour covers the same area: 0 to 1, with ties equal.

    For signed scores, the ranks are of the absolute scores, from 1 / L to 1, and the sign is kept.
    """
    _, place, count = np.unique(np.abs(scores) if signed else scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count + 1) / 2)[place]  # from 0; equal scores share the mean of their ranks
    return np.sign(scores) * (rank + 1) / len(scores) if signed else rank / max(1, len(scores) - 1)
