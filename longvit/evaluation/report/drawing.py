"""Style shared by all figures: colours, rendering. Figures are made without pyplot; text stays text in the SVG."""

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, HAIR = "#1d2733", "#7a8694", "#d9dee4"
HEIGHT = 3.4
"""Height of a figure, inches; figures of one height share a row of the page."""
COLOURS = ("#0b6e99", "#c2541b", "#3d7a3f", "#8a4f9e", "#a67c00", "#5b6573")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of classes and models may contain $
}


@dataclass(frozen=True)
class RenderedFigure:
    """A rendered figure.

    Attributes:
        name: Stem of its file names.
        caption: Description of the figure, for the page and for readers who cannot see it.
        width_in: Width, inches; the page shows all figures at one scale.
        svg: An `<svg>` element for use inside HTML without changes.
        png: The figure as PNG, 200 dots per inch.
    """

    name: str
    caption: str
    width_in: float
    svg: str
    png: bytes


def render(name: str, figure: Figure, caption: str) -> RenderedFigure:
    """Render a figure as SVG and PNG; the same figure gives the same bytes."""
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # A name has letters that the font lacks, or is too long for the figure.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=200, facecolor="white")
    text = svg.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r'<g id="[^"]*">', "<g>", text
    )  # matplotlib repeats these ids in all figures; a page needs unique ids
    return RenderedFigure(name, caption, float(figure.get_figwidth()), text, png.getvalue())


def rows_of(axes: Axes, labels: list[str]) -> None:
    """Label the rows of a forest plot from above, without an axis line."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set(ylim=(len(labels) - 0.4, -0.6))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
