"""How numbers are called and written, in the report, the figures and the terminal alike."""

from collections.abc import Mapping
from typing import Any

METRIC_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "accuracy": "Accuracy",
    "c_index": "c-index",
    "logrank_p": "Log-rank p",
}
MISSING = "\N{EN DASH}"


def decimal(value: float | None) -> str:
    """Three decimals, or a dash where there is no number."""
    return MISSING if value is None else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """As one writes it in a sentence: `p = 0.012`, `p < 0.001`."""
    if value is None:
        return f"p {MISSING}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def interval(number: Mapping[str, Any]) -> str:
    """`0.712 to 0.934`, or a dash where there is no interval."""
    return MISSING if number["low"] is None else f"{number['low']:.3f} to {number['high']:.3f}"


def composition(counts: Mapping[str, Any]) -> str:
    """Who the patients are: classes, or events, of a fold or of all."""
    if "n_events" in counts:
        return f"{counts['n_events']} events"
    return ", ".join(f"{count} {name}" for name, count in counts["class_counts"].items())
