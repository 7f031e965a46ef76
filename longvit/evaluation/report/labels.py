"""How numbers are called and written, in the report, the figures and the terminal alike."""

from collections.abc import Mapping
from typing import Any

METRIC_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "kappa": "Cohen's kappa",
    "accuracy": "Accuracy",
    "ece": "ECE",
    "c_index": "c-index",
    "uno_c_index": "Uno's c-index",
    "td_auc": "Mean AUC(t)",
    "ibs": "IBS",
    "ibs_km": "IBS, Kaplan-Meier",
    "logrank_p": "Log-rank p",
}
HOW = {
    "subtyping": (
        "AUROC and AUPRC are those of the second class, or the mean over one-vs-rest problems where there are more "
        "than two; balanced accuracy, F1 (macro), Cohen's kappa and accuracy judge the most probable class. ECE is the "
        "expected calibration error in ten bins: 0 is calibrated, lower is better, and on few patients, and more so in "
        "resamples of them, it is too high. Pooled takes the probabilities of all held-out patients together."
    ),
    "survival": (
        "The c-index is Harrell's: the share of comparable pairs of patients in which the one with the higher risk has "
        "the earlier event. Uno's weighs pairs by the probability of not having been censored; AUC(t) asks the same of "
        "who had the event by a time and who was followed for longer, and is averaged over the times of the figure. "
        "Pooled counts only pairs within the same fold, because the risks of two models are on different scales. IBS "
        "is the integrated Brier score of survival curves that are fitted, for each fold, on the held-out patients of "
        "the others (Cox on the standardised risk, Breslow's baseline): lower is better; IBS, Kaplan-Meier, is that "
        "of one curve for all. The log-rank test compares patients above and below the median risk of their fold; a "
        "patient whom several folds hold out counts once there, by the mean distance from the medians."
    ),
}
HOW_ALL = (
    " A patient with several slides counts once per fold: slides are averaged. Intervals are 95 % percentile intervals "
    "from {resamples:,} bootstrap resamples of patients; ± is the standard deviation over folds."
)
MISSING = "\N{EN DASH}"


def decimal(value: float | None) -> str:
    """Three decimals, or a dash where there is no number."""
    return MISSING if value is None else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """As one writes it in a sentence: `p = 0.012`, `p < 0.001`."""
    if value is None:
        return f"p {MISSING}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def bare_p(value: float | None) -> str:
    """As one writes it in a table: `0.012`, `< 0.001`."""
    return p_value(value).removeprefix("p = ").removeprefix("p ")


def interval(number: Mapping[str, Any]) -> str:
    """`0.712 to 0.934`, or a dash where there is no interval."""
    return MISSING if number["low"] is None else f"{number['low']:.3f} to {number['high']:.3f}"


def composition(counts: Mapping[str, Any]) -> str:
    """Who the patients are: classes, or events, of a fold or of all."""
    if "n_events" in counts:
        return f"{counts['n_events']} events"
    return ", ".join(f"{count} {name}" for name, count in counts["class_counts"].items())


def at_time(unit: str) -> str:
    """Return the label of a time axis, such as `Time, days`."""
    return f"Time, {unit}"


def heading(metrics: Mapping[str, Any]) -> str:
    """`Survival`, or `Subtyping: LUAD, LUSC`."""
    return "Survival" if metrics["task"] == "survival" else f"Subtyping: {', '.join(metrics['classes'])}"


def how_computed(metrics: Mapping[str, Any]) -> str:
    """What the numbers are, in a paragraph."""
    unit = f" Times are in {metrics['time_unit']}." if metrics["task"] == "survival" else ""
    return HOW[metrics["task"]] + HOW_ALL.format(**metrics["bootstrap"]) + unit
