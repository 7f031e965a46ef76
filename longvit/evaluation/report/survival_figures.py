"""Figures of survival: Kaplan-Meier with numbers at risk, AUC and Brier score over time, hazard ratios."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from longvit.evaluation.predictions import Predictions
from longvit.evaluation.report.drawing import COLOURS, HEIGHT, MUTED, rows_of
from longvit.evaluation.report.metric_labels import at_time, p_value
from longvit.evaluation.survival import high_risk

FEWEST_TICKS = 4
SHOWN = (0.04, 60.0)
"""Range of hazard ratios that is drawn: a wide interval would squeeze all others together."""


def survival_figures(predictions: Predictions, metrics: Mapping[str, Any]) -> Iterator[tuple[str, Figure, str]]:
    """Yield name, figure and caption of each figure."""
    yield "kaplan_meier", *_kaplan_meier(predictions.part(metrics["split"]), metrics)
    if metrics["over_time"]["times"]:
        yield "over_time", *_over_time(metrics["over_time"], metrics["time_unit"])
    if any(entry["alone"] for entry in metrics["cox"]["covariates"]):
        yield "hazard_ratios", *_hazard_ratios(metrics["cox"])


def _kaplan_meier(rows: pd.DataFrame, metrics: Mapping[str, Any]) -> tuple[Figure, str]:
    rows = rows.assign(high=high_risk(rows["risk"], rows["fold"], rows["patient_id"])).drop_duplicates("patient_id")
    high = rows["high"].to_numpy()
    figure = Figure(figsize=(4.8, HEIGHT), layout="constrained")
    axes, table = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    last = rows["time"].max() or 1
    for label, chosen, colour in (("low risk", ~high, COLOURS[0]), ("high risk", high, COLOURS[1])):
        if chosen.any():
            _survival_curve(axes, rows[chosen], f"{label} (n = {chosen.sum()})", colour)
    axes.set(ylim=(0, 1.03), ylabel="Share without event", title="Kaplan-Meier by predicted risk")
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    log_rank = f"log-rank {p_value(metrics['pooled']['logrank_p']['value'])}"
    axes.legend(loc="upper right", fontsize=8.5, title=log_rank, title_fontsize=8.5, alignment="left")
    _numbers_at_risk(table, rows, high)
    table.set_xlabel(at_time(metrics["time_unit"]))
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
    table.set(ylim=(1.6, -0.6), yticks=[0, 1], yticklabels=["low", "high"])
    table.set_title("At risk", fontsize=8.5, weight="normal", color=MUTED, pad=2)
    table.spines[:].set_visible(False)
    table.tick_params(length=0)
    table.tick_params(axis="y", pad=12)  # keeps a distance from the numbers at time 0


def _over_time(series: Mapping[str, Any], unit: str) -> tuple[Figure, str]:
    times = series["times"]
    figure = Figure(figsize=(4.8, HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.axhline(0.5, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    _band(left, times, series["td_auc"], COLOURS[0], label=None)
    left.set(ylim=(0, 1.03), xlabel=at_time(unit), title="AUC(t)")
    if "brier" in series:
        _band(right, times, series["brier"], COLOURS[0], label="model")
        right.plot(times, _values(series["brier_km"]), color=MUTED, lw=1.2, ls=(0, (4, 3)), label="Kaplan-Meier")
        right.legend(loc="lower center", fontsize=8.5)
    else:
        right.text(0.5, 0.5, "needs other folds\nwith events", color=MUTED, ha="center", transform=right.transAxes)
    right.set(xlabel=at_time(unit), title="Brier score", ylim=(0, None))
    caption = "Left: cumulative/dynamic AUC, above 0.5 is better than chance."
    if "brier" in series:
        caption += " Right: Brier score of survival curves fitted on the other folds; below the dashed line is better "
        caption += "than one curve for all."
    return figure, f"{caption} Bands: 95 %."


def _band(axes: Axes, times: Sequence[float], series: Sequence[Mapping], colour: str, *, label: str | None) -> None:
    low, high = (np.array([number[end] for number in series], dtype=float) for end in ("low", "high"))
    axes.fill_between(times, low, high, color=colour, alpha=0.13, lw=0)
    axes.plot(times, _values(series), color=colour, lw=1.8, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _values(series: Sequence[Mapping]) -> np.ndarray:
    return np.array([number["value"] for number in series], dtype=float)


def _hazard_ratios(cox: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw the forest plot of the Cox regression, on a logarithmic axis."""
    entries = cox["covariates"]
    figure = Figure(figsize=(4.8, max(1.7, 1.2 + 0.45 * len(entries))), layout="constrained")
    axes = figure.add_subplot(xscale="log")
    axes.axvline(1, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    for y, entry in enumerate(entries):
        for kind, shift, colour in (("alone", -0.13, MUTED), ("adjusted", 0.13, COLOURS[0])):
            found = entry[kind]
            if found is not None and None not in (found["hazard_ratio"], found["low"], found["high"]):
                axes.plot([found["low"], found["high"]], [y + shift] * 2, color=colour, lw=1.5)
                axes.plot(found["hazard_ratio"], y + shift, "s", color=colour, ms=5, label=None if y else kind)
    rows_of(axes, [entry["name"] for entry in entries])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.set(xlabel="Hazard ratio", title="Cox regression")
    low, high = axes.get_xlim()
    low, high = max(low, SHOWN[0]), min(high, SHOWN[1])
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ratio_ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(loc="best", fontsize=8.5)
    adjusted = any(entry["adjusted"] for entry in entries)
    return (
        figure,
        f"Hazard ratios with 95 % intervals: each covariate alone{', and with all others' if adjusted else ''}.",
    )


def ratio_ticks(low: float, high: float) -> list[float]:
    """Return ticks between two ratios, from the coarsest ladder that has at least four of them, else from the last."""
    ladders = [
        [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50],
        [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50],
        [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2],
        [*MaxNLocator(5).tick_values(low, high), 1],
    ]
    inside = [sorted({float(tick) for tick in ladder if low <= tick <= high}) for ladder in ladders]
    return next((ticks for ticks in inside if len(ticks) >= FEWEST_TICKS), inside[-1])
