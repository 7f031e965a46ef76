"""Comparison of two models on the same patients, with paired bootstrap intervals of the differences."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from longvit.evaluation.folds import ResampledEvaluation
from longvit.evaluation.intervals import percentile_interval
from longvit.evaluation.predictions import Predictions
from longvit.formats.predictions_csv import TASKS
from preprocessing.errors import CohortError, few, short

NAMED = 10
"""Largest number of patients that an error lists."""


def require_same_patients(ours: Predictions, other: Predictions, split: str, name: str) -> None:
    """Refuse predictions that do not answer the same question for the same patients in the same folds.

    Raises:
        CohortError: Task, classes, time unit, patients, folds or true values differ; the error lists the patients.
    """
    where = f"{other.file} ({name}), split {split}"
    if (ours.task, ours.classes) != (other.task, other.classes):
        asked = lambda one: f"{one.task} {', '.join(map(short, one.classes))}".strip()
        what = f"the models answer different questions: {asked(ours)} and {asked(other)}"
        raise CohortError(
            what, where=where, fix="compare models of one task, with the same `p_<class>` columns in the same order"
        )
    if ours.time_unit != other.time_unit:
        what = f"the times are in different units: {ours.time_unit} and {other.time_unit}"
        raise CohortError(what, where=where, fix="make both from one table, with the same task.time_unit")
    ours_rows, other_rows = (one.part(split).set_index(["fold", "patient_id"]) for one in (ours, other))
    missing = ours_rows.index.difference(other_rows.index)
    extra = other_rows.index.difference(ours_rows.index)
    if len(missing) or len(extra):
        lists = [f"{verb}: {_listed(rows)}" for verb, rows in (("it lacks", missing), ("it adds", extra)) if len(rows)]
        what = "the models were not evaluated on the same patients in the same folds; " + "; ".join(lists)
        raise CohortError(what, where=where, fix=f"predict the patients of {ours.file} with the same splits")
    truth = list(TASKS[ours.task].truth)
    differs = (ours_rows[truth] != other_rows.loc[ours_rows.index, truth]).any(axis=1)
    if differs.any():
        what = f"`{', '.join(truth)}` differs for {_listed(ours_rows.index[differs])}"
        raise CohortError(what, where=where, fix="make both from one table")


def compared(ours: ResampledEvaluation, others: Mapping[str, ResampledEvaluation]) -> list[dict[str, Any]]:
    """Return one entry per other model: its numbers, and the difference of ours to them.

    Both models are scored on the same resamples of patients, so that the difficulty of patients cancels.
    `difference` is our number minus the other model's. `p` is two-sided: twice the share of resamples on the rarer side
    of 0.
    """
    entries = []
    for name, other in others.items():
        places = ("mean", "pooled")
        difference = {place: _differences(ours, other, place) for place in places}
        kept = {key: other.metrics[key] for key in ("source", *places)}
        entries.append({"name": name, **kept, "difference": difference})
    return entries


def _differences(
    ours: ResampledEvaluation, other: ResampledEvaluation, place: str
) -> dict[str, dict[str, float | None]]:
    found = {}
    for name, number in ours.metrics[place].items():
        values = ours.resampled[place].get(name), other.resampled[place].get(name)
        known = [number["value"], other.metrics[place][name]["value"]]
        if None not in known and values[0] is not None and values[1] is not None:
            found[name] = {"value": known[0] - known[1], **_paired(values[0] - values[1])}
    return found


def _paired(difference: np.ndarray) -> dict[str, float | None]:
    found = percentile_interval(difference)
    if found is None:
        return {"low": None, "high": None, "p": None}
    known = difference[np.isfinite(difference)]
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    return {"low": found[0], "high": found[1], "p": float(min(1, 2 * (rarer + 1) / (len(known) + 1)))}


def _listed(rows: pd.Index) -> str:
    return few([f"{patient} (fold {fold})" for fold, patient in rows], NAMED)
