"""Place of a patient among the held-out patients of a run: Kaplan-Meier by predicted risk, or class probabilities."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter

from longvit.evaluation.predictions import Predictions, read_predictions
from longvit.evaluation.survival import high_risk
from longvit.runs.privacy import Pseudonyms


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions of a run for the patients that it did not train on.

    Attributes:
        predictions: All predictions of the run.
        patient_of: Slide id -> patient id.
    """

    predictions: Predictions
    patient_of: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "HeldOutPredictions":
        """Read a `predictions.csv`.

        Raises:
            CohortError: The predictions cannot be evaluated.
        """
        predictions = read_predictions(path)
        return cls(predictions, dict(predictions.patient_of))

    def under(self, names: Pseudonyms) -> "HeldOutPredictions":
        """Return these predictions with pseudonyms for slides and patients."""
        patients = self.predictions.patients
        patients = patients.assign(patient_id=patients["patient_id"].map(names.of))
        patient_of = {names.of(slide): names.of(patient) for slide, patient in self.patient_of.items()}
        return replace(self, predictions=replace(self.predictions, patients=patients), patient_of=patient_of)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Return a row per held-out patient and fold: rows of test, or of val if the splits have no test."""
        test = self.predictions.part("test")
        rows = test if len(test) else self.predictions.part("val")
        if self.predictions.task == "survival":
            high = high_risk(rows["risk"], rows["fold"], rows["patient_id"])
            rows = rows.assign(high=high, place=_places(rows["risk"], rows["fold"]))
        return rows

    def document(self) -> dict[str, Any]:
        """Return the data of the cohort that the page draws: curves and risks, or the names of the classes."""
        about: dict[str, Any] = {"task": self.predictions.task}
        if self.predictions.task == "subtyping":
            return about | {"classes": list(self.predictions.classes)}
        once = self.rows.drop_duplicates("patient_id")
        groups = (("low risk", once[~once["high"]]), ("high risk", once[once["high"]]))
        return about | {
            "time_unit": self.predictions.time_unit,
            "curves": [_curve(label, rows) for label, rows in groups if len(rows)],
            "places": [round(place, 4) for place in self.rows["place"]],
        }

    def patient(self, slide_id: str) -> dict[str, Any] | None:
        """Return the patient of a slide among the held-out patients; None if no fold held the patient out."""
        name = self.patient_of.get(slide_id)
        mine = self.rows[self.rows["patient_id"] == name]
        if mine.empty:
            return None
        about = {"patient_id": name, "folds": mine["fold"].tolist()}
        if self.predictions.task == "subtyping":
            probabilities = {one: float(mine[f"p_{one}"].mean()) for one in self.predictions.classes}
            return about | {"label": mine["label"].iloc[0], "probabilities": probabilities}
        first = mine.iloc[0]  # the first of the folds that held the patient out: their risks have no common scale
        return about | {
            "time": float(first["time"]),
            "event": int(first["event"]),
            "risk": float(first["risk"]),
            "high": bool(first["high"]),
            "place": float(first["place"]),
        }


def _places(risk: pd.Series, fold: pd.Series) -> pd.Series:
    """Return the share of the fold's other patients with a lower risk, ties counted half: 0 lowest, 1 highest."""
    ranks, sizes = risk.groupby(fold).rank(), risk.groupby(fold).transform("size")
    return ((ranks - 1) / (sizes - 1)).where(sizes > 1, 0.5)


def _curve(label: str, rows: pd.DataFrame) -> dict[str, Any]:
    """Return Kaplan-Meier with its 95 % band (exponential Greenwood), as steps."""
    fit = KaplanMeierFitter().fit(rows["time"], rows["event"])
    survival, band = fit.survival_function_.iloc[:, 0], fit.confidence_interval_
    censored = np.sort(rows.loc[rows["event"] == 0, "time"].to_numpy())
    numbers = {"time": survival.index, "share": survival, "low": band.iloc[:, 0], "high": band.iloc[:, 1]}
    return {"label": label, "n": len(rows), "censored": censored.tolist()} | {
        name: [round(float(value), 4) for value in values] for name, values in numbers.items()
    }
