"""Predictions per patient and fold, from a predictions.csv and the files of the run next to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from longvit.cohort.follow_up import implausible
from longvit.config import TimeUnit
from longvit.evaluation.run_files import fold_notes, selected_epoch
from longvit.formats.audit_json import read_audit
from longvit.formats.predictions_csv import REAL, TASKS, PredictionTable, Task, read_prediction_table
from preprocessing.errors import CohortError


@dataclass(frozen=True)
class Predictions:
    """Predictions per patient: slides of a patient are averaged within a fold (late fusion).

    Attributes:
        file: Name of the file that the predictions were read from.
        sha256: Hash of that file.
        task: Question that was predicted.
        classes: Class names in the order of the file's `p_<class>` columns; empty for survival.
        patients: One row per (shuffled, fold, split, patient_id), with `n_slides` and then `label, p_<class>...`
            or `time`, `event` (1 observed), `risk` (higher = earlier event).
        patient_of: Patient of each slide.
        time_unit: Unit of `time`.
        select: The epoch that the run kept, from the `config.yaml` next to the file; None if it is unknown.
        fold_notes: Problems in the training of folds, from the files of the run.
    """

    file: str
    sha256: str
    task: Task
    classes: tuple[str, ...]
    patients: pd.DataFrame
    patient_of: Mapping[str, str]
    time_unit: TimeUnit = "months"
    select: Literal["last", "best_val"] | None = None
    fold_notes: Mapping[int, list[str]] = field(default_factory=dict)

    def part(self, split: str, shuffled: int = REAL) -> pd.DataFrame:
        """Return the rows of one split, of the models of one permutation of labels (default: of the real labels)."""
        chosen = (self.patients["split"] == split) & (self.patients["shuffled"] == shuffled)
        return self.patients[chosen].reset_index(drop=True)

    def shuffles(self, split: str) -> list[int]:
        """Return the numbers of the label permutations that have rows in a split."""
        shuffled = self.patients.loc[self.patients["split"] == split, "shuffled"]
        return sorted(set(shuffled) - {REAL})


def read_predictions(path: Path) -> Predictions:
    """Read and check a `predictions.csv` (columns: `longvit.formats.predictions_csv`), and average a patient's slides.

    A patient in two parts of a fold is refused, unless the `audit.json` next to the file shows that this was accepted.

    Raises:
        CohortError: The file or its audit cannot be read; or columns and lines that cannot be evaluated; or times
            without a unit that cannot be months.
        ConfigError: The settings next to the file cannot be read.
    """
    audit, select = read_audit(path.parent), selected_epoch(path)
    table = read_prediction_table(path, audit.leaks if audit else frozenset())
    if "time" in table.rows and table.time_unit is None and (found := implausible(table.rows["time"], "months")):
        said, likely = found
        fix = f"add a column time_unit with {likely or 'the unit'} in every row; or with months, if this is right"
        raise CohortError(f"without a column time_unit times are months: {said}", where=f"{path}, column time", fix=fix)
    unit = table.time_unit or "months"
    notes = fold_notes(path)
    return Predictions(
        path.name, table.sha256, table.task, table.classes, _per_patient(table), table.patient_of, unit, select, notes
    )


def _per_patient(table: PredictionTable) -> pd.DataFrame:
    """Return a row per patient and fold, with the mean prediction of the patient's slides."""
    columns = TASKS[table.task]
    groups = table.rows.groupby(["shuffled", "fold", "split", "patient_id"], sort=True)
    truth, predicted = groups[list(columns.truth)].first(), groups[columns.prediction(table.classes)].mean()
    return pd.concat([groups["n_slides"].sum(), truth, predicted], axis=1).reset_index()
