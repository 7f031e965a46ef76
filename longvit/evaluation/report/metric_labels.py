"""Names and formats of metrics, shared by the report, the figures and the terminal."""

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
        "AUROC and AUPRC are for the second of two classes, or the mean over one-vs-rest problems for more classes. "
        "Balanced accuracy, F1 (macro), Cohen's kappa and accuracy evaluate the most probable class. ECE is the "
        "expected calibration error in ten bins: 0 is calibrated, lower is better. On few patients ECE is too high, "
        "and more so in resamples of patients. Pooled uses the probabilities of all held-out patients together."
    ),
    "survival": (
        "The c-index is Harrell's: the share of comparable pairs in which the patient with the higher risk has the "
        "earlier event. Uno's c-index weights pairs by the inverse squared probability of not being censored. AUC(t) "
        "compares patients with the event by time t with patients followed for longer in the same way, weighted by "
        "the inverse probability; its mean is over the times of the figure. Pooled counts only pairs within the same "
        "fold, because the risks of two models are on different scales. IBS is the integrated Brier score; lower is "
        "better. Its survival curves are fitted, for each fold, to the held-out patients of the other folds (Cox on "
        "the standardised risk, Breslow's baseline). IBS, Kaplan-Meier, uses one curve for all. The log-rank test "
        "compares patients above and below the median risk of their fold. There, a patient whom several folds hold out "
        "counts once, by the mean distance from the medians."
    ),
}
HOW_ALL = (
    " A patient with several slides counts once per fold: the slides' predictions are averaged. Intervals are 95 % "
    "percentile intervals from {resamples:,} bootstrap resamples of patients; ± is the standard deviation over folds."
)
MISSING = "\N{EN DASH}"


def decimal(value: float | None) -> str:
    """Format a number with three decimals, or as a dash if it is undefined."""
    return MISSING if value is None else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """Format a p-value for a sentence: `p = 0.012`, `p < 0.001`."""
    if value is None:
        return f"p {MISSING}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def bare_p(value: float | None) -> str:
    """Format a p-value for a table: `0.012`, `< 0.001`."""
    return p_value(value).removeprefix("p = ").removeprefix("p ")


def interval(number: Mapping[str, Any]) -> str:
    """Format an interval as `0.712 to 0.934`, or as a dash if there is none."""
    return MISSING if number["low"] is None else f"{number['low']:.3f} to {number['high']:.3f}"


def composition(counts: Mapping[str, Any]) -> str:
    """Return the composition of the patients of a fold or of all folds: patients per class, or number of events."""
    if "n_events" in counts:
        return f"{counts['n_events']} events"
    return ", ".join(f"{count} {name}" for name, count in counts["class_counts"].items())


def at_time(unit: str) -> str:
    """Return the label of a time axis, such as `Time, days`."""
    return f"Time, {unit}"


def heading(metrics: Mapping[str, Any]) -> str:
    """Return the heading of an evaluation: `Survival`, or `Subtyping: LUAD, LUSC`."""
    return "Survival" if metrics["task"] == "survival" else f"Subtyping: {', '.join(metrics['classes'])}"


def how_computed(metrics: Mapping[str, Any]) -> str:
    """Return a paragraph that defines the metrics."""
    unit = f" Times are in {metrics['time_unit']}." if metrics["task"] == "survival" else ""
    return HOW[metrics["task"]] + HOW_ALL.format(**metrics["bootstrap"]) + unit
