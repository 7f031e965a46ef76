"""Scores -> colours that the colour-blind tell apart, in even steps, and a scale that says what they mean."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import Colormap, Normalize, to_hex

DIVERGING: Colormap = colormaps["coolwarm"]
"""For scores with a sign: red speaks for, blue against, grey for neither (Moreland 2009; steps of equal size)."""
SEQUENTIAL: Colormap = colormaps["viridis"]
"""For scores that are shares: dark is little, yellow is much."""
CLIPPED = 0.01
"""Share of the scores at each end that may lie beyond the scale, so that a single token does not pale all others."""
STOPS = 17
"""Colours that a scale is written down with; between them a reader interpolates."""


@dataclass(frozen=True)
class ColourScale:
    """Which scores get which colours."""

    vmin: float
    """Score of the first colour; lower ones have it too."""
    vmax: float
    """Score of the last colour."""
    colours: Colormap
    """The colours."""

    @classmethod
    def of(cls, scores: Float[np.ndarray, "..."], signed: bool) -> "ColourScale":
        """The scale that fits some scores (NaN: no token); with a sign it is even on both sides of 0."""
        if signed:
            most = float(np.nanquantile(np.abs(scores), 1 - CLIPPED)) or 1.0
            return cls(-most, most, DIVERGING)
        low, high = (float(x) for x in np.nanquantile(scores, (CLIPPED, 1 - CLIPPED)))
        return cls(low, high if high > low else low + 1.0, SEQUENTIAL)

    @property
    def norm(self) -> Normalize:
        """Scores -> 0 to 1, as matplotlib wants it."""
        return Normalize(self.vmin, self.vmax)

    def stops(self) -> list[str]:
        """The colours as `#rrggbb`, in even steps from `vmin` to `vmax`."""
        return [to_hex(self.colours(share)) for share in np.linspace(0, 1, STOPS)]


def ranked(scores: Float[np.ndarray, " L"], signed: bool) -> Float[np.ndarray, " L"]:
    """Scores by their rank alone, so that each colour covers the same area: 0 to 1, equal scores alike.

    With a sign, the ranks are those of the absolute scores, from 1 / L to 1, and the sign stays.
    """
    _, place, count = np.unique(np.abs(scores) if signed else scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count + 1) / 2)[place]  # from 0; equal scores share the mean of their ranks
    return np.sign(scores) * (rank + 1) / len(scores) if signed else rank / max(1, len(scores) - 1)
