"""Scores of tokens -> a picture of the slide."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

COLOURS = colormaps["RdBu_r"]  # diverging, perceptually even on both sides of 0, safe for the colour-blind


def heatmap(scores: Float[np.ndarray, " l"], rc: Int[np.ndarray, "l 2"]) -> Float[np.ndarray, "rows columns"]:
    """Scores on the token grid; places without a token are NaN."""
    grid = np.full(rc.max(axis=0) + 1, np.nan, scores.dtype)
    grid[rc[:, 0], rc[:, 1]] = scores
    return grid


def overlay(
    overview: UInt8[np.ndarray, "h w 3"],
    grid: Float[np.ndarray, "rows columns"],
    extent_px: tuple[float, float],
    title: str,
    label: str,
) -> Figure:
    """The slide beside the slide under its heatmap, with the scale.

    Args:
        overview: The whole slide, small.
        grid: Scores on the token grid.
        extent_px: Width and height of the token grid in overview pixels.
        title: Above the picture.
        label: What the scale measures.
    """
    most = float(np.nanquantile(np.abs(grid), 0.99)) or 1.0
    norm = TwoSlopeNorm(0, -most, most)
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax in axes:
        ax.imshow(overview)
        ax.set_axis_off()
    width, height = extent_px
    axes[1].imshow(grid, cmap=COLOURS, norm=norm, alpha=0.6, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    axes[1].set(xlim=(-0.5, overview.shape[1] - 0.5), ylim=(overview.shape[0] - 0.5, -0.5))
    figure.colorbar(ScalarMappable(norm, COLOURS), ax=axes, label=label, shrink=0.8, extend="both")
    figure.suptitle(title, fontsize=12)
    return figure
