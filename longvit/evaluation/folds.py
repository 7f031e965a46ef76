"""Predictions -> metrics: per fold, their mean, and pooled; each with an interval and its shuffled-label control."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from longvit.evaluation import intervals
from longvit.evaluation.judges import Judge, Resampled, judge
from longvit.evaluation.metrics import CLASSIFICATION_METRICS
from longvit.evaluation.predictions import Predictions, read_predictions
from longvit.evaluation.survival import SURVIVAL_METRICS
from longvit.evaluation.wording import METRIC_NAMES
from preprocessing.errors import CohortError

CHANCE = 0.5
"""AUROC and c-index of a model that knows nothing."""
AVERAGED = {*CLASSIFICATION_METRICS, *SURVIVAL_METRICS} - {"logrank_p"}
"""Numbers whose mean over folds means something; the mean of p-values does not."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation, with what a comparison with another needs.

    Attributes:
        metrics: Content of `metrics.json`, see `evaluate_predictions`.
        resampled: Numbers of every bootstrap resample per fold, `mean` and `pooled`.
    """

    metrics: dict[str, Any]
    resampled: dict[Any, Resampled]


@dataclass(frozen=True)
class Points:
    """Numbers of one set of models.

    Attributes:
        table: One row per fold, then `mean` and `pooled`; one column per metric; NaN where there is no number.
        sd: Standard deviation (n - 1) over folds per metric.
        reasons: Why a fold (or `pooled`) has no numbers.
    """

    table: pd.DataFrame
    sd: pd.Series
    reasons: dict[Any, str]


def evaluate_predictions(path: Path | str, split: str = "test") -> dict[str, Any]:
    """Metrics of a `predictions.csv`: the content of `metrics.json`.

    A patient with several slides counts once per fold (mean over slides). `folds` has one entry per fold, `mean` their
    mean and standard deviation, `pooled` all held-out patients together. AUROC pools the patients' probabilities;
    the pooled c-index counts pairs within a fold only, since the risks of two models are on different scales.
    Every number comes as `value`, `low` and `high` (95 % bootstrap interval over patients), and `shuffled` (the same
    number for models trained on permuted labels, mean over permutations); a number that does not exist is None.
    `confusion` and `reliability`, or `over_time`, hold what the figures show.

    Raises:
        CohortError: The file cannot be read or holds nothing to evaluate in `split`.
    """
    return evaluate(read_predictions(Path(path)), split).metrics


def evaluate(predictions: Predictions, split: str = "test") -> Evaluated:
    """`evaluate_predictions` of predictions that are already read."""
    rows = predictions.part(split)
    if rows.empty:
        what = f"there are no predictions of split `{split}`, only of {', '.join(set(predictions.patients['split']))}"
        raise CohortError(what, where=f"{predictions.file}, column split", fix="choose another split")
    try:
        task = judge(rows, predictions)
        points = _points(rows, task)
    except CohortError as error:
        where = f"{predictions.file}, split {split}, all folds together"
        raise CohortError(error.what, where=where, fix="predict more patients") from None
    shuffles = predictions.shuffles(split)
    tables = [_shuffled_table(predictions, split, shuffled) for shuffled in shuffles]
    control = _control([table for table in tables if table is not None], points)
    weights = intervals.resample_weights(rows["patient_id"])
    resampled = _resampled(rows, task, points, weights)
    numbers = lambda place: {name: _number(place, name, points, control, resampled) for name in task.metrics}
    mean = numbers("mean")
    result = {
        "source": {"file": predictions.file, "sha256": predictions.sha256},
        "name": "Model",
        "task": predictions.task,
        "split": split,
        "headline": task.metrics[0],
        "classes": list(predictions.classes),
        **_counts(rows, predictions),
        "folds": [
            {"fold": int(fold), **_counts(part, predictions), "reason": points.reasons.get(fold)}
            | {"metrics": None if fold in points.reasons else numbers(fold)}
            for fold, part in rows.groupby("fold")
        ],
        "mean": {name: mean[name] | {"sd": _known(points.sd[name])} for name in task.metrics if name in AVERAGED},
        "pooled": numbers("pooled"),
        **task.details(weights),
        "models": [],
        "n_shuffles": len(shuffles),
        "bootstrap": {"resamples": intervals.RESAMPLES, "seed": intervals.SEED, "over": "patients", "level": 0.95},
    }
    return Evaluated(result | {"warnings": _warnings(result, rows, predictions)}, resampled)


def _points(rows: pd.DataFrame, task: Judge) -> Points:
    """Numbers per fold, their mean, and pooled.

    Raises:
        CohortError: There is no number even of all folds together.
    """
    scored: dict[Any, dict[str, Any]] = {}
    reasons = {}
    for fold, part in rows.groupby("fold"):
        try:
            scored[fold] = task.score(part.index.to_numpy())
        except CohortError as error:
            scored[fold], reasons[fold] = {}, error.what
    scored["pooled"] = task.score(rows.index.to_numpy())
    table = pd.DataFrame(list(scored.values()), index=list(scored), columns=list(task.metrics), dtype=float)
    folds = table.drop(index="pooled")
    table.loc["mean"] = folds.mean()
    return Points(table, folds.std(ddof=1), reasons)


def _shuffled_table(predictions: Predictions, split: str, shuffled: int) -> pd.DataFrame | None:
    """Numbers of the models of one permutation; none where its patients have no pooled number."""
    rows = predictions.part(split, shuffled)
    try:
        return _points(rows, judge(rows, predictions)).table
    except CohortError:
        return None


def _control(tables: list[pd.DataFrame], points: Points) -> pd.DataFrame:
    """Mean over the shuffles of each number; NaN where no shuffle has it."""
    if not tables:
        return pd.DataFrame(np.nan, index=points.table.index, columns=points.table.columns)
    return pd.concat(tables).groupby(level=0, sort=False).mean().reindex(points.table.index)


def _resampled(rows: pd.DataFrame, task: Judge, points: Points, weights: np.ndarray) -> dict[Any, Resampled]:
    """Numbers of every resample, from one draw of patients: a fold sees those of the drawn that it holds out."""
    folds = {
        fold: task.resample(index.to_numpy(), weights)
        for fold, index in rows.groupby("fold").groups.items()
        if fold not in points.reasons
    }
    mean = {}
    for name in task.metrics:
        of_folds = [numbers[name] for numbers in folds.values() if name in numbers]
        if of_folds:
            mean[name] = pd.DataFrame(of_folds).mean().to_numpy()
    return folds | {"mean": mean, "pooled": task.resample(rows.index.to_numpy(), weights)}


def _number(
    place: object, name: str, points: Points, control: pd.DataFrame, resampled: dict[Any, Resampled]
) -> dict[str, float | None]:
    values = resampled[place].get(name)
    low, high = (None if values is None else intervals.percentile_interval(values)) or (None, None)
    value, shuffled = _known(points.table.loc[place, name]), _known(control.loc[place, name])
    return {"value": value, "low": low, "high": high, "shuffled": shuffled}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _counts(rows: pd.DataFrame, predictions: Predictions) -> dict[str, Any]:
    patients = rows.drop_duplicates("patient_id")
    counts: dict[str, Any] = {"n_patients": len(patients), "n_slides": int(rows["n_slides"].sum())}
    if predictions.task == "survival":
        return counts | {"n_events": int(patients["event"].sum())}
    label = patients["label"]
    return counts | {"class_counts": {name: int((label == name).sum()) for name in predictions.classes}}


def _warnings(result: dict[str, Any], rows: pd.DataFrame, predictions: Predictions) -> list[str]:
    """What a reader has to know before believing the numbers, in sentences."""
    name, pooled = METRIC_NAMES[result["headline"]], result["pooled"][result["headline"]]
    said = [f"Fold {fold['fold']} has no numbers: {fold['reason']}." for fold in result["folds"] if fold["reason"]]
    for fold in result["folds"]:
        absent = [label for label, count in fold.get("class_counts", {}).items() if count == 0]
        if absent and not fold["reason"]:
            said.append(f"Fold {fold['fold']} holds out no {', '.join(absent)}; its means are over the other classes.")
    if result["split"] == "val":
        said.append("These are validation patients: models were selected on them, so the numbers are too good.")
    repeated = rows["patient_id"].duplicated()
    if repeated.any():
        n = rows.loc[repeated, "patient_id"].nunique()
        said.append(f"{n} patients are held out by several folds; pooled, each counts once per fold.")
    said += _control_warnings(rows, predictions, result["split"])
    if pooled["low"] is not None and pooled["low"] <= CHANCE:
        said.append(f"The interval of the pooled {name} reaches {CHANCE}: it is not shown to be better than chance.")
    elif None not in (pooled["low"], pooled["shuffled"]) and pooled["low"] <= pooled["shuffled"]:
        said.append(f"The shuffled-label control lies within the interval of the pooled {name}, or above it.")
    ibs, of_kaplan_meier = (result["pooled"].get(one, {"value": None})["value"] for one in ("ibs", "ibs_km"))
    if None not in (ibs, of_kaplan_meier) and ibs >= of_kaplan_meier:
        said.append("Survival curves made from the risks are no better than Kaplan-Meier's, which tells all the same.")
    of_folds = [fold["metrics"][result["headline"]] for fold in result["folds"] if fold["metrics"]]
    if any(number["low"] is not None and number["low"] == number["high"] for number in [pooled, *of_folds]):
        said.append("An interval without width comes from a perfect score on few patients; it is no certainty.")
    return said


def _control_warnings(rows: pd.DataFrame, predictions: Predictions, split: str) -> list[str]:
    shuffles = predictions.shuffles(split)
    if not shuffles:
        return ["There is no shuffled-label control: nothing here shows what this pipeline scores on noise."]
    held_out = lambda part: set(zip(part["fold"], part["patient_id"], strict=True))
    if any(held_out(predictions.part(split, shuffled)) != held_out(rows) for shuffled in shuffles):
        return ["The shuffled-label control was not predicted for the same patients in the same folds."]
    return []
