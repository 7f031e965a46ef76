"""Scorers of subtyping and survival: the names of the metrics, and how rows of patients are scored."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from sklearn.metrics import confusion_matrix

from longvit.evaluation import intervals
from longvit.evaluation.cox import cox_regression
from longvit.evaluation.ipcw import CensoringCurve, SurvivalRows, brier, censoring, dynamic_auc
from longvit.evaluation.metrics import CLASSIFICATION_METRICS, classification_metrics, label_codes, reliability
from longvit.evaluation.predictions import Predictions
from longvit.evaluation.survival import (
    SURVIVAL_METRICS,
    first_rows,
    high_risk,
    resampled_survival,
    score_survival,
    survival_rows,
)
from longvit.formats.predictions_csv import TASKS

Resampled = dict[str, np.ndarray]


@runtime_checkable
class Scorer(Protocol):
    """Scorer of the rows of one set of models; `index` are row numbers, `weights` (resamples, n) are for all rows."""

    metrics: tuple[str, ...]

    def score(self, index: np.ndarray) -> dict[str, Any]:
        """Return the metrics of some rows.

        Raises:
            CohortError: The headline metric is undefined.
        """
        ...

    def resample(self, index: np.ndarray, weights: np.ndarray) -> Resampled:
        """Return (resamples,) values per metric."""
        ...

    def details(self, weights: np.ndarray) -> dict[str, Any]:
        """Return the data of figures that are not metrics, of all rows."""
        ...


class SubtypingScorer:
    """Scorer of class probabilities."""

    metrics: tuple[str, ...] = CLASSIFICATION_METRICS

    def __init__(self, rows: pd.DataFrame, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.truth = label_codes(rows["label"], classes)
        self.probability = rows[TASKS["subtyping"].prediction(classes)].to_numpy()

    def score(self, index: np.ndarray) -> dict[str, Any]:
        """Return the `classification_metrics` of some rows."""
        return classification_metrics(self.truth[index], self.probability[index])

    def resample(self, index: np.ndarray, weights: np.ndarray) -> Resampled:
        """Return (resamples,) values per metric."""
        return intervals.resampled_classification(self.truth[index], self.probability[index], weights[:, index])

    def details(self, weights: np.ndarray) -> dict[str, Any]:
        """Return the confusion matrix (true by predicted, patients) and the bins of the reliability figure."""
        predicted = self.probability.argmax(axis=1)
        confusion = confusion_matrix(self.truth, predicted, labels=np.arange(len(self.classes)))
        return {"confusion": confusion.tolist(), "reliability": reliability(self.truth, self.probability)}


class SurvivalScorer:
    """Scorer of risks."""

    metrics: tuple[str, ...] = SURVIVAL_METRICS

    def __init__(self, rows: pd.DataFrame) -> None:
        self.table = rows
        self.rows = survival_rows(*(rows[name] for name in ("time", "event", "risk", "fold", "patient_id")))
        self.known = censoring(self.rows, np.ones((1, len(rows))))

    def score(self, index: np.ndarray) -> dict[str, Any]:
        """Return the `survival_metrics` of some rows; censoring, times and curves come from all rows."""
        return score_survival(self.rows.take(index), self.known.take(index))

    def resample(self, index: np.ndarray, weights: np.ndarray) -> Resampled:
        """Return (resamples,) values per metric, except the log-rank test's p, which has no interval."""
        rows, known = self.rows.take(index), censoring(self.rows, weights).take(index)
        survival = {"time": rows.time, "event": rows.event, "risk": rows.risk}
        c_index = intervals.resampled_c_index(survival, rows.stratum, weights[:, index])
        return {"c_index": c_index, **resampled_survival(rows, weights[:, index], known)}

    def details(self, weights: np.ndarray) -> dict[str, Any]:
        """Return AUC and Brier score at every time, with intervals; risk groups; Cox regression of the risk alone."""
        rows = self.rows
        series = {"td_auc": partial(dynamic_auc, rows)}
        if rows.model is not None and rows.reference is not None:
            series["brier"] = partial(brier, rows, rows.model)
            series["brier_km"] = partial(brier, rows, rows.reference)
        known = censoring(rows, weights)
        values = {name: self._series(compute, weights, known) for name, compute in series.items()}
        over_time = {"times": rows.times.tolist(), **values}
        return {"over_time": over_time, "risk_groups": risk_groups(rows), "cox": cox_regression(self.table, None)}

    def _series(self, compute: Callable, weights: np.ndarray, known: CensoringCurve) -> list[dict[str, float | None]]:
        points = compute(np.ones((1, weights.shape[1])), self.known)[0]
        found = [intervals.percentile_interval(column) or (None, None) for column in compute(weights, known).T]
        return [
            {"value": float(value) if np.isfinite(value) else None, "low": low, "high": high}
            for value, (low, high) in zip(points, found, strict=True)
        ]


def risk_groups(rows: SurvivalRows) -> list[dict[str, Any]]:
    """Return `n`, `n_events` and Kaplan-Meier's `median_time` of low and high risk; each patient counts once."""
    high = high_risk(rows.risk, rows.stratum, rows.patient)
    once = np.arange(len(high)) if rows.patient is None else first_rows(rows.patient)
    groups = []
    for name, chosen in (("low risk", once[~high[once]]), ("high risk", once[high[once]])):
        counts = {"name": name, "n": len(chosen), "n_events": int(rows.event[chosen].sum())}
        median = np.inf
        if len(chosen):
            median = KaplanMeierFitter().fit(rows.time[chosen], rows.event[chosen]).median_survival_time_
        groups.append(counts | {"median_time": float(median) if np.isfinite(median) else None})
    return groups


def choose_scorer(rows: pd.DataFrame, predictions: Predictions) -> Scorer:
    """Return the scorer of these rows of `predictions`."""
    return SurvivalScorer(rows) if predictions.task == "survival" else SubtypingScorer(rows, predictions.classes)
