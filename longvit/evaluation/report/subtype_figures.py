"""Figures of subtyping: ROC, confusion matrix, reliability."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from longvit.evaluation.predictions import Predictions
from longvit.evaluation.report.drawing import COLOURS, HAIR, HEIGHT, INK, MUTED


def subtyping_figures(predictions: Predictions, metrics: Mapping[str, Any]) -> Iterator[tuple[str, Figure, str]]:
    """Yield name, figure and caption of each figure."""
    rows = predictions.part(metrics["split"])
    shuffled = [predictions.part(metrics["split"], number) for number in predictions.shuffles(metrics["split"])]
    roc = _roc_binary if len(predictions.classes) == 2 else _roc_many
    yield "roc", *roc(rows, shuffled, predictions.classes)
    yield "confusion", *_confusion(np.array(metrics["confusion"]), predictions.classes)
    yield "calibration", *_calibration(metrics, predictions.classes)


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
    return figure, f"ROC of {positive} against {negative}. Thin: each fold; thick: all held-out patients."


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
    control = "; dashed: models trained on shuffled labels" if shuffled else ""
    return figure, f"ROC of each class against the rest, all held-out patients{control}."


def _confusion(count: np.ndarray, classes: tuple[str, ...]) -> tuple[Figure, str]:
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


def _calibration(metrics: Mapping[str, Any], classes: tuple[str, ...]) -> tuple[Figure, str]:
    """Draw stated against observed shares per bin, and below them the number of patients per bin."""
    bins = metrics["reliability"]
    stated, observed, n = (np.array([one[key] for one in bins]) for key in ("stated", "observed", "n"))
    figure = Figure(figsize=(HEIGHT, HEIGHT), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    axes.plot([0, 1], [0, 1], color=HAIR, lw=1)
    axes.plot(stated, observed, color=COLOURS[0], lw=1.3)
    axes.scatter(stated, observed, s=20 + 120 * n / n.sum(), color=COLOURS[0], edgecolor="white", zorder=3)
    of = f"Share that is {classes[1]}" if len(classes) == 2 else "Share that is right"
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05), ylabel=of, title="Calibration")
    ece = metrics["pooled"]["ece"]["value"]
    axes.text(0.02, 0.97, f"ECE {ece:.3f}", transform=axes.transAxes, va="top", fontsize=8.5)
    counts.bar(stated, n, width=0.04, color=MUTED)
    said = f"Stated probability of {classes[1]}" if len(classes) == 2 else "Stated probability of the likeliest class"
    counts.set(xlabel=said, ylabel="n", yticks=[0, int(n.max())])
    return figure, "Stated probability against observed share, in bins of a tenth; dot area: number of patients."
