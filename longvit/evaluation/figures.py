"""Figures of the report, drawn on Figure objects: no pyplot, no global state; text stays text in the SVG."""

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix, roc_curve

from longvit.evaluation.folds import CHANCE
from longvit.evaluation.predictions import Predictions
from longvit.evaluation.survival import high_risk
from longvit.evaluation.wording import METRIC_NAMES, p_value

INK, MUTED, HAIR = "#1d2733", "#7a8694", "#d9dee4"
HEIGHT = 3.4
"""Of a figure, inches; figures of one height stand in one row of the page."""
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
}


@dataclass(frozen=True)
class Drawing:
    """A rendered figure.

    Attributes:
        name: Stem of its files.
        caption: What it shows, for the page and for readers who do not see it.
        aspect: Width over height.
        svg: An `<svg>` element that stands inside HTML as it is.
        png: The same, 200 dots per inch.
    """

    name: str
    caption: str
    aspect: float
    svg: str
    png: bytes


def draw_figures(predictions: Predictions, metrics: dict[str, Any]) -> list[Drawing]:
    """All figures of one evaluation, in the order of the report."""
    rows = predictions.part(metrics["split"])
    with mpl.rc_context(STYLE):
        drawings = [_render("folds", *_forest(metrics))]
        if predictions.task == "survival":
            return [*drawings, _render("kaplan_meier", *_kaplan_meier(rows, metrics))]
        shuffled = [predictions.part(metrics["split"], number) for number in predictions.shuffles(metrics["split"])]
        roc = _roc_binary if len(predictions.classes) == 2 else _roc_many
        drawings.append(_render("roc", *roc(rows, shuffled, predictions.classes)))
        drawings.append(_render("confusion", *_confusion(rows, predictions.classes)))
        return drawings


def _render(name: str, figure: Figure, caption: str) -> Drawing:
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name}):  # the same predictions give the same bytes
        figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png", dpi=200, facecolor="white")
    text = svg.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # matplotlib repeats these in every figure; a page wants unique ids
    width, height = figure.get_size_inches()
    return Drawing(name, caption, round(width / height, 3), text, png.getvalue())


def _forest(metrics: dict[str, Any]) -> tuple[Figure, str]:
    """The headline number of every fold and pooled, with intervals, chance and control."""
    name = metrics["headline"]
    places = [(f"Fold {f['fold']}", f["metrics"] and f["metrics"][name]) for f in metrics["folds"]]
    places = [*places, ("Mean", metrics["mean"][name]), ("Pooled", metrics["pooled"][name])]
    figure = Figure(figsize=(3.7, max(HEIGHT, 1 + 0.24 * len(places))), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(CHANCE, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    for y, (label, number) in enumerate(places):
        _forest_row(axes, y, label, number)
    axes.set_yticks(range(len(places)), [label for label, _ in places])
    axes.axhline(len(places) - 2.5, color=HAIR, lw=0.8)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(places) - 0.4, -0.6), xlabel=METRIC_NAMES[name], title="Folds and pooled")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    caption = (
        f"{METRIC_NAMES[name]} with 95 % bootstrap intervals over patients; hollow grey: models trained on shuffled "
        "labels; dashed: chance."
    )
    return figure, caption


def _forest_row(axes: Axes, y: int, label: str, number: dict[str, float] | None) -> None:
    if number is None or number["value"] is None:
        axes.text(CHANCE, y, " no number", color=MUTED, va="center", fontsize=8)
        return
    total = label in ("Mean", "Pooled")
    colour = INK if total else COLOURS[0]
    if number["low"] is not None:
        axes.plot([number["low"], number["high"]], [y, y], color=colour, lw=2 if total else 1.3, solid_capstyle="butt")
    axes.plot(number["value"], y, "D" if total else "o", color=colour, ms=6 if total else 5)
    if number["shuffled"] is not None:
        axes.plot(number["shuffled"], y, "o", mfc="white", mec=MUTED, ms=5, zorder=1.5)


def _roc_axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(HEIGHT, HEIGHT), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    axes.plot([0, 1], [0, 1], color=HAIR, lw=1)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=xlabel, ylabel=ylabel, title=title)
    return figure, axes


def _roc_line(axes: Axes, rows: pd.DataFrame, name: str, **style: Any) -> None:  # noqa: ANN401  matplotlib's own keywords
    positive = rows["label"] == name
    if positive.any() and not positive.all():
        false_rate, true_rate, _ = roc_curve(positive, rows[f"p_{name}"], drop_intermediate=False)
        axes.plot(false_rate, true_rate, **style)


def _roc_binary(rows: pd.DataFrame, shuffled: list[pd.DataFrame], classes: tuple[str, ...]) -> tuple[Figure, str]:
    negative, positive = classes
    figure, axes = _roc_axes("ROC", f"Share of {negative} called {positive}", f"Share of {positive} found")
    if shuffled:
        control = {"color": MUTED, "lw": 1.2, "ls": (0, (4, 3)), "label": "shuffled labels"}
        _roc_line(axes, pd.concat(shuffled), positive, **control)
    for i, (_, part) in enumerate(rows.groupby("fold")):
        _roc_line(axes, part, positive, color=COLOURS[0], lw=0.8, alpha=0.45, label=None if i else "one fold")
    _roc_line(axes, rows, positive, color=COLOURS[0], lw=2.4, label="pooled")
    axes.legend(loc="lower right", fontsize=8.5, reverse=True)
    return figure, f"ROC of {positive} against {negative}: each fold thin, all held-out patients thick."


def _roc_many(rows: pd.DataFrame, shuffled: list[pd.DataFrame], classes: tuple[str, ...]) -> tuple[Figure, str]:
    figure, axes = _roc_axes(
        "ROC, one class against the rest", "Share of the rest called it", "Share of the class found"
    )
    for i, name in enumerate(classes):
        colour = COLOURS[i % len(COLOURS)]
        if shuffled:
            _roc_line(axes, pd.concat(shuffled), name, color=colour, lw=0.9, ls=(0, (4, 3)), alpha=0.6)
        _roc_line(axes, rows, name, color=colour, lw=2, label=name)
    axes.legend(loc="lower right", fontsize=8.5)
    return (
        figure,
        "ROC of each class against the rest, all held-out patients; dashed: models trained on shuffled labels.",
    )


def _confusion(rows: pd.DataFrame, classes: tuple[str, ...]) -> tuple[Figure, str]:
    predicted = np.array(classes)[rows[[f"p_{name}" for name in classes]].to_numpy().argmax(axis=1)]
    count = confusion_matrix(rows["label"], predicted, labels=list(classes))
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    side = max(HEIGHT, 1.1 + 0.6 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1.25, edgecolors="white", linewidth=2)
    for (i, j), n in np.ndenumerate(count):
        colour = "white" if share[i, j] > 0.65 else INK
        axes.text(j + 0.5, i + 0.43, str(n), ha="center", va="center", color=colour, fontsize=12, weight="bold")
        axes.text(j + 0.5, i + 0.66, f"{share[i, j]:.0%}", ha="center", va="center", color=colour, fontsize=8)
    centres = np.arange(len(classes)) + 0.5
    axes.set_xticks(centres, classes)
    axes.set_yticks(centres, classes, rotation=90, va="center")
    axes.set(xlabel="Predicted", ylabel="True", title="Confusion")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, "Held-out patients by true and most probable class; shares are of the true class."


def _kaplan_meier(rows: pd.DataFrame, metrics: dict[str, Any]) -> tuple[Figure, str]:
    high = high_risk(rows["risk"], rows["fold"])
    figure = Figure(figsize=(4.8, HEIGHT), layout="constrained")
    axes, table = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    last = rows["time"].max()
    for label, chosen, colour in (("low risk", ~high, COLOURS[0]), ("high risk", high, COLOURS[1])):
        if chosen.any():
            _survival_curve(axes, rows[chosen], f"{label} (n = {chosen.sum()})", colour)
    axes.set(ylim=(0, 1.03), ylabel="Share without event", title="Kaplan-Meier by predicted risk")
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    log_rank = f"log-rank {p_value(metrics['pooled']['logrank_p']['value'])}"
    axes.legend(loc="upper right", fontsize=8.5, title=log_rank, title_fontsize=8.5, alignment="left")
    _numbers_at_risk(table, rows, high)
    caption = (
        "Held-out patients above and below the median predicted risk of their fold; bands: 95 % "
        "(exponential Greenwood); ticks: censored."
    )
    return figure, caption


def _survival_curve(axes: Axes, rows: pd.DataFrame, label: str, colour: str) -> None:
    fit = KaplanMeierFitter().fit(rows["time"], rows["event"])
    survival, band = fit.survival_function_.iloc[:, 0], fit.confidence_interval_
    axes.step(survival.index, survival, where="post", color=colour, lw=1.8, label=label)
    axes.fill_between(band.index, band.iloc[:, 0], band.iloc[:, 1], step="post", color=colour, alpha=0.13, lw=0)
    censored = rows.loc[rows["event"] == 0, "time"]
    axes.plot(censored, survival.loc[censored], "|", color=colour, ms=6, mew=1)


def _numbers_at_risk(table: Axes, rows: pd.DataFrame, high: np.ndarray) -> None:
    left, right = table.get_xlim()
    for y, (chosen, colour) in enumerate(((~high, COLOURS[0]), (high, COLOURS[1]))):
        for t in table.get_xticks():
            if left <= t <= right:
                table.text(t, y, str((rows.loc[chosen, "time"] >= t).sum()), ha="center", va="center", color=colour)
    table.set(ylim=(1.6, -0.6), xlabel="Months", yticks=[])
    table.set_title("At risk", fontsize=8.5, weight="normal", color=MUTED, pad=2)
    table.spines[:].set_visible(False)
    table.tick_params(length=0)
