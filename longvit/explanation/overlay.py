"""Pictures of a slide with the scores of its tokens."""

from textwrap import fill

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from longvit.explanation.colour import ColourScale


def heatmap(scores: Float[np.ndarray, " l"], rc: Int[np.ndarray, "l 2"]) -> Float[np.ndarray, "rows columns"]:
    """Return scores on the token grid; places without a token are NaN."""
    grid = np.full(rc.max(axis=0) + 1, np.nan, scores.dtype)
    grid[rc[:, 0], rc[:, 1]] = scores
    return grid


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    grid: Float[np.ndarray, "rows columns"],
    extent_px: tuple[float, float],
    scale: ColourScale,
    title: str,
    label: str,
    *,
    corner_px: tuple[int, int] = (0, 0),
) -> Figure:
    """Return a figure of the slide next to the slide under its heatmap, with the scale.

    Args:
        image: Picture of the slide or its scanned part, at any resolution.
        grid: Scores on the token grid.
        extent_px: Width and height of the token grid, in pixels of the image.
        scale: Colours of the scores.
        title: Text above the picture.
        label: Quantity of the scale.
        corner_px: Left and top of the token grid, in pixels of the image.
    """
    height, width = image.shape[:2]
    inches = max(5.0, width / DPI), max(5.0, height / DPI)
    figure = Figure(figsize=(2 * inches[0] + 1.3, inches[1] + 0.5), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax in axes:
        ax.imshow(image)
        ax.set_axis_off()
    left, top = (start - 0.5 for start in corner_px)  # pixel centres are whole numbers
    right, bottom = left + extent_px[0], top + extent_px[1]
    axes[1].imshow(
        grid,
        cmap=scale.colours,
        norm=scale.norm,
        alpha=0.6,
        extent=(left, right, bottom, top),
        interpolation="nearest",
    )
    axes[1].set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    colours = ScalarMappable(scale.norm, scale.colours)
    figure.colorbar(colours, ax=axes, label=fill(label, _LABEL_WIDTH), shrink=0.8, extend="both")
    figure.suptitle(title, fontsize=12)
    return figure


DPI = 150
"""Resolution of a picture, pixels per inch of its fonts."""
_LABEL_WIDTH = 48
"""Letters per line next to the scale, which is at least four inches high."""
