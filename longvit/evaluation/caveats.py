"""Reasons to distrust an evaluation, as sentences: every reason that the data support, and no other."""

from collections.abc import Iterator, Mapping
from typing import Any

from longvit.evaluation.predictions import Predictions
from longvit.evaluation.report.metric_labels import METRIC_NAMES, decimal

CHANCE = 0.5
"""AUROC and c-index at chance level."""
VALIDATION = {
    "best_val": "These are validation patients: models were selected on them, so the numbers are too good.",
    "last": "These are validation patients. The run kept the last epoch, so no model was selected on them; it is "
    "unknown whether settings were selected on them.",
    None: "These are validation patients. There is no config.yaml of the run next to the predictions, so it is unknown "
    "whether models were selected on them.",
}
"""Setting `select` of the run -> sentence about validation patients."""
REPEATED = {
    "survival": "{n} patients are held out by several folds. c-indices, AUC(t) and Brier scores count each once per "
    "fold; Kaplan-Meier, risk groups, the log-rank test and Cox regression count each once, with the mean risk.",
    "subtyping": "{n} patients are held out by several folds; pooled, each counts once per fold.",
}


def caveats(result: Mapping[str, Any], predictions: Predictions) -> list[str]:
    """Return the sentences that a reader needs before believing the numbers.

    Args:
        result: Content of `metrics.json`, without these sentences.
        predictions: Predictions from which the content was computed.
    """
    said = list(_of_folds(result))
    for fold in result["folds"]:
        said += [f"Training of fold {fold['fold']}: {note}" for note in predictions.fold_notes.get(fold["fold"], ())]
    if result["split"] == "val":
        said.append(VALIDATION[predictions.select])
    patients = predictions.part(result["split"])["patient_id"]
    repeated = patients[patients.duplicated()].nunique()
    if repeated:
        said.append(REPEATED[predictions.task].format(n=repeated))
    said += _of_the_control(predictions, result["split"])
    said += _of_the_headline(result)
    ibs, of_kaplan_meier = (result["pooled"].get(one, {"value": None})["value"] for one in ("ibs", "ibs_km"))
    if None not in (ibs, of_kaplan_meier) and ibs >= of_kaplan_meier:
        said.append("Survival curves made from the risks are no better than Kaplan-Meier, one curve for all patients.")
    return said


def _of_folds(result: Mapping[str, Any]) -> Iterator[str]:
    for fold in result["folds"]:
        if fold["reason"]:
            yield f"Fold {fold['fold']} has no numbers: {fold['reason']}."
    for fold in result["folds"]:
        absent = [label for label, count in fold.get("class_counts", {}).items() if count == 0]
        if absent and not fold["reason"]:
            yield f"Fold {fold['fold']} holds out no {', '.join(absent)}; its means are over the other classes."


def _of_the_control(predictions: Predictions, split: str) -> Iterator[str]:
    shuffles = predictions.shuffles(split)
    if not shuffles:
        yield "There is no shuffled-label control: nothing here shows what this pipeline scores on noise."
    held_out = lambda part: set(zip(part["fold"], part["patient_id"], strict=True))
    ours = held_out(predictions.part(split))
    if any(held_out(predictions.part(split, shuffled)) != ours for shuffled in shuffles):
        yield "The shuffled-label control was not predicted for the same patients in the same folds."


def _of_the_headline(result: Mapping[str, Any]) -> Iterator[str]:
    headline = result["headline"]
    name, pooled = METRIC_NAMES[headline], result["pooled"][headline]
    value, low, high, shuffled = (pooled[key] for key in ("value", "low", "high", "shuffled"))
    if low is None:
        yield f"The pooled {name} has no interval: most resamples of these patients have no such number."
    elif high < CHANCE:
        yield f"The interval of the pooled {name} is below {CHANCE}: the model is worse than chance."
    elif low <= CHANCE:
        yield f"The interval of the pooled {name} reaches {CHANCE}: it is not shown to be better than chance."
    if shuffled is not None and shuffled >= value:
        scores = f"{name} is {decimal(shuffled)}, the model's is {decimal(value)}"
        yield f"Models trained on shuffled labels are as good as the model, or better: their pooled {scores}."
    elif shuffled is not None and low is not None and low <= shuffled:
        yield f"The shuffled-label control is within the interval of the pooled {name}."
    of_folds = [fold["metrics"][headline] for fold in result["folds"] if fold["metrics"]]
    flat = {one["value"] for one in (pooled, *of_folds) if one["low"] is not None and one["low"] == one["high"]}
    if 1 in flat:
        yield "An interval without width comes from a perfect score on few patients; it does not show certainty."
    if flat - {1}:
        yield f"An interval of the {name} has no width: every resample gives the same number. This is not certainty."
