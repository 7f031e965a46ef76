"""Figures of one evaluation, and the forest plots of both tasks: folds, and models next to each other."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longvit.evaluation.caveats import CHANCE
from longvit.evaluation.predictions import Predictions
from longvit.evaluation.report.drawing import COLOURS, HAIR, HEIGHT, INK, MUTED, STYLE, RenderedFigure, render, rows_of
from longvit.evaluation.report.metric_labels import METRIC_NAMES
from longvit.evaluation.report.subtype_figures import subtyping_figures
from longvit.evaluation.report.survival_figures import survival_figures


def draw_figures(predictions: Predictions, metrics: dict[str, Any]) -> list[RenderedFigure]:
    """Draw all figures of one evaluation, in the order of the report."""
    of_task = survival_figures if predictions.task == "survival" else subtyping_figures
    with mpl.rc_context(STYLE):
        drawings = [render("folds", *_folds(metrics))]
        drawings += [render(*drawn) for drawn in of_task(predictions, metrics)]
        if metrics["models"]:
            drawings.append(render("models", *_models(metrics)))
    return drawings


def _folds(metrics: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw the headline metric of every fold, the mean and the pooled value, with intervals, chance and control."""
    name = metrics["headline"]
    places = [(f"Fold {f['fold']}", f["metrics"] and f["metrics"][name]) for f in metrics["folds"]]
    places = [*places, ("Mean", metrics["mean"][name]), ("Pooled", metrics["pooled"][name])]
    figure = _forest(places, METRIC_NAMES[name], "Folds and pooled", n_totals=2)
    control = "hollow grey: models trained on shuffled labels; " if metrics["n_shuffles"] else ""
    return figure, f"{METRIC_NAMES[name]} with 95 % bootstrap intervals over patients; {control}dashed: chance."


def _models(metrics: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw the pooled headline metric of the model and of the models compared with it."""
    name = metrics["headline"]
    places = [(model["name"], model["pooled"][name] | {"shuffled": None}) for model in metrics["models"]]
    places.append((metrics["name"], metrics["pooled"][name] | {"shuffled": None}))
    figure = _forest(places, METRIC_NAMES[name], "Models, pooled", n_totals=1)
    return figure, f"{METRIC_NAMES[name]} of all models on the same held-out patients; intervals and chance as before."


def _forest(places: list[tuple[str, dict | None]], xlabel: str, title: str, n_totals: int) -> Figure:
    """Draw one row per place; the last `n_totals` rows are emphasised below a line."""
    figure = Figure(figsize=(3.7, max(HEIGHT, 1 + 0.24 * len(places))), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(CHANCE, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    for y, (_, number) in enumerate(places):
        _forest_row(axes, y, number, total=y >= len(places) - n_totals)
    rows_of(axes, [label for label, _ in places])
    axes.axhline(len(places) - n_totals - 0.5, color=HAIR, lw=0.8)
    axes.set(xlim=(-0.02, 1.02), xlabel=xlabel, title=title)
    return figure


def _forest_row(axes: Axes, y: int, number: dict[str, float] | None, *, total: bool) -> None:
    if number is None or number["value"] is None:
        axes.text(CHANCE, y, " not defined", color=MUTED, va="center", fontsize=8)
        return
    colour = INK if total else COLOURS[0]
    if number["low"] is not None:
        axes.plot([number["low"], number["high"]], [y, y], color=colour, lw=2 if total else 1.3, solid_capstyle="butt")
    axes.plot(number["value"], y, "D" if total else "o", color=colour, ms=6 if total else 5)
    if number["shuffled"] is not None:
        axes.plot(number["shuffled"], y, "o", mfc="white", mec=MUTED, ms=5, zorder=1.5)
