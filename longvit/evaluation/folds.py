"""Predictions -> metrics: per fold, their mean, and pooled, each with an interval and its shuffled-label control."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from longvit.evaluation import intervals
from longvit.evaluation.caveats import caveats
from longvit.evaluation.metrics import CLASSIFICATION_METRICS
from longvit.evaluation.predictions import Predictions, read_predictions
from longvit.evaluation.scorers import Resampled, Scorer, choose_scorer
from longvit.evaluation.survival import SURVIVAL_METRICS
from preprocessing.errors import CohortError

MAX_PATIENTS, MAX_OF_FOLD, MAX_FOLDS = 20_000, 4_000, 1_000
"""Largest numbers of patient rows, of survival patients in one fold, and of folds; more take hours, or memory that few
machines have."""
AVERAGED = {*CLASSIFICATION_METRICS, *SURVIVAL_METRICS} - {"logrank_p"}
"""Metrics with a meaningful mean over folds; the mean of p-values has no meaning."""


@dataclass(frozen=True)
class ResampledEvaluation:
    """Result of one evaluation, and the resamples that a comparison with another needs.

    Attributes:
        metrics: Content of `metrics.json`, see `evaluate_predictions`.
        resampled: Metrics of every bootstrap resample per fold, `mean` and `pooled`.
    """

    metrics: dict[str, Any]
    resampled: dict[Any, Resampled]


@dataclass(frozen=True)
class PointEstimates:
    """Metrics of one set of models.

    Attributes:
        table: One row per fold, then `mean` and `pooled`; one column per metric; NaN if a metric is undefined.
        sd: Standard deviation (n - 1) over folds per metric.
        reasons: Reason why a fold (or `pooled`) has no metrics.
    """

    table: pd.DataFrame
    sd: pd.Series
    reasons: dict[Any, str]


def evaluate_predictions(path: Path | str, split: str = "test") -> dict[str, Any]:
    """Return the metrics of a `predictions.csv`: the content of `metrics.json`.

    A patient with several slides counts once per fold (mean over slides). `folds` has one entry per fold, `mean` their
    mean and standard deviation, `pooled` all held-out patients together. The pooled AUROC pools the patients'
    probabilities. The pooled c-index counts pairs within a fold only, since the risks of two models are on different
    scales.

    Every metric has `value`, `low` and `high` (95 % bootstrap interval over patients), and `shuffled` (the same metric
    of models trained on permuted labels, mean over permutations). An undefined metric is None. `confusion` and
    `reliability`, or `over_time`, contain the data of the figures.

    Raises:
        CohortError: The file cannot be read or has no predictions of `split`.
    """
    return evaluate_folds(read_predictions(Path(path)), split).metrics


def evaluate_folds(predictions: Predictions, split: str = "test") -> ResampledEvaluation:
    """Evaluate predictions that are already read, as `evaluate_predictions` does."""
    rows = predictions.part(split)
    if rows.empty:
        what = f"there are no predictions of split `{split}`, only of {', '.join(set(predictions.patients['split']))}"
        raise CohortError(what, where=f"{predictions.file}, column split", fix="choose another split")
    _refuse_too_many(rows, predictions)
    try:
        task = choose_scorer(rows, predictions)
        points = _points(rows, task)
    except CohortError as error:
        where = f"{predictions.file}, split {split}, all folds together"
        raise CohortError(error.what, where=where, fix=error.fix) from None
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
        **({"time_unit": predictions.time_unit} if predictions.task == "survival" else {}),
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
    return ResampledEvaluation(result | {"warnings": caveats(result, predictions)}, resampled)


def _refuse_too_many(rows: pd.DataFrame, predictions: Predictions) -> None:
    """Refuse more patients or folds than can be resampled in reasonable time and memory.

    Raises:
        CohortError: There are too many patients or folds.
    """
    sizes = rows.groupby("fold").size()
    found = [("patients in all folds", len(rows), MAX_PATIENTS), ("folds", len(sizes), MAX_FOLDS)]
    if predictions.task == "survival":
        found.append((f"patients in fold {sizes.idxmax()}", int(sizes.max()), MAX_OF_FOLD))
    for what, count, most in found:
        if count > most:
            fix = "evaluate fewer at once"
            raise CohortError(f"there are {count:,} {what}, more than {most:,}", where=predictions.file, fix=fix)


def _points(rows: pd.DataFrame, task: Scorer) -> PointEstimates:
    """Return the metrics per fold, their mean, and pooled.

    Raises:
        CohortError: Even all folds together have no metrics.
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
    return PointEstimates(table, folds.std(ddof=1), reasons)


def _shuffled_table(predictions: Predictions, split: str, shuffled: int) -> pd.DataFrame | None:
    """Return the metrics of the models of one permutation; None if its patients have no pooled metrics."""
    rows = predictions.part(split, shuffled)
    try:
        return _points(rows, choose_scorer(rows, predictions)).table
    except CohortError:
        return None


def _control(tables: list[pd.DataFrame], points: PointEstimates) -> pd.DataFrame:
    """Return the mean of each metric over the shuffles; NaN if no shuffle has it."""
    if not tables:
        return pd.DataFrame(np.nan, index=points.table.index, columns=points.table.columns)
    return pd.concat(tables).groupby(level=0, sort=False).mean().reindex(points.table.index)


def _resampled(rows: pd.DataFrame, task: Scorer, points: PointEstimates, weights: np.ndarray) -> dict[Any, Resampled]:
    """Return the metrics of every resample, from one draw of patients; a fold takes the drawn patients it holds out."""
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
    place: int | str, name: str, points: PointEstimates, control: pd.DataFrame, resampled: dict[Any, Resampled]
) -> dict[str, float | None]:
    values = resampled[place].get(name)
    low, high = (None if values is None else intervals.percentile_interval(values)) or (None, None)
    value, shuffled = _known(points.table.loc[place, name]), _known(control.loc[place, name])
    return {"value": value, "low": low, "high": high, "shuffled": shuffled}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _counts(rows: pd.DataFrame, predictions: Predictions) -> dict[str, Any]:
    patients = rows.drop_duplicates("patient_id")
    n_slides = int(rows.groupby("patient_id")["n_slides"].max().sum())
    counts: dict[str, Any] = {"n_patients": len(patients), "n_slides": n_slides}
    if predictions.task == "survival":
        return counts | {"n_events": int(patients["event"].sum())}
    label = patients["label"]
    return counts | {"class_counts": {name: int((label == name).sum()) for name in predictions.classes}}
