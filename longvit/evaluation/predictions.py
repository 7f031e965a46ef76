"""predictions.csv -> one row per patient and fold. Every problem of a file is named in one refusal."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from longvit.cohort.follow_up import implausible
from longvit.cohort.numbers import exact_numbers
from longvit.config import TimeUnit
from longvit.evaluation.beside import fold_notes, read_audit, selected_epoch
from longvit.evaluation.prediction_table import CONTROL, SURVIVAL, Task, name_lines, read_bytes, read_strings
from preprocessing.errors import CohortError, short

REAL = -1
"""Value of `shuffled` for models that were trained on the real labels."""
SPLITS = ("train", "val", "test")
UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
JOINED = ";"
"""Between the slides of a patient that were read as one sequence."""
SUM_TOLERANCE = 1e-3
"""How far from 1 the probabilities of a row may sum: files are written with four digits or more."""
MAX_NUMBER, MAX_TIME, MAX_RISK = 999_999, 1e6, 1e100
"""Largest number of a fold or shuffle, largest time in any unit, and largest risk whose square is a number."""


@dataclass(frozen=True)
class Predictions:
    """Predictions per patient: slides of a patient are averaged within a fold (late fusion).

    Attributes:
        file: Name of the file they were read from.
        sha256: Hash of that file.
        task: What was predicted.
        classes: Class names in the order of the file's `p_<class>` columns; empty for survival.
        patients: One row per (shuffled, fold, split, patient_id), with `n_slides` and then `label, p_<class>...`
            or `time`, `event` (1 observed), `risk` (higher = earlier event).
        time_unit: Unit of `time`.
        select: The epoch that the run kept, from the `config.yaml` next to the file; None if it is unknown.
        fold_notes: What went wrong in the training of folds, from the files of the run.
    """

    file: str
    sha256: str
    task: Task
    classes: tuple[str, ...]
    patients: pd.DataFrame
    time_unit: TimeUnit = "months"
    select: Literal["last", "best_val"] | None = None
    fold_notes: Mapping[int, list[str]] = field(default_factory=dict)

    def part(self, split: str, shuffled: int = REAL) -> pd.DataFrame:
        """Rows of one split, of the models of one permutation of labels (default: of the real labels)."""
        chosen = (self.patients["split"] == split) & (self.patients["shuffled"] == shuffled)
        return self.patients[chosen].reset_index(drop=True)

    def shuffles(self, split: str) -> list[int]:
        """Numbers of the label permutations that have rows in `split`."""
        shuffled = self.patients.loc[self.patients["split"] == split, "shuffled"]
        return sorted(set(shuffled) - {REAL})


@dataclass(frozen=True)
class _Finding:
    what: str
    where: str
    fix: str


class _Findings(list[_Finding]):
    """Everything that is wrong with a table of strings whose index is the line in the file."""

    def __init__(self, table: pd.DataFrame) -> None:
        super().__init__()
        self.table = table

    def note(self, bad: pd.Series, column: str, what: str, fix: str) -> None:
        """Record `what` for the lines where `bad` holds, with the values that stand there."""
        lines = self.table.index[bad.to_numpy(dtype=bool)]
        if len(lines):
            value = f": {short(self.table.loc[lines[0], column])!r}" if column in self.table else ""
            self.append(_Finding(f"`{column}` {what}{value}", f"column {column}, {name_lines(lines)}", fix))


def read_predictions(path: Path) -> Predictions:
    """Read and check a `predictions.csv`.

    Columns: `patient_id, slide_id, fold, split`, then `label, p_<class>...` or `time, event, risk`, one row per slide;
    optionally `shuffled`, the permutation of labels that the model was trained on (empty or -1: the real labels), and
    `time_unit` (days, months or years; without the column months). A patient in two parts of a fold is refused, unless
    the `audit.json` next to the file shows that this was accepted.

    Raises:
        CohortError: The file or its audit cannot be read; or columns and lines that cannot be evaluated.
        ConfigError: The settings next to it cannot be read.
    """
    content, audit, select = read_bytes(path), read_audit(path), selected_epoch(path)
    table, task, classes = read_strings(content, path)
    findings = _Findings(table)
    values = _common_values(table, findings)
    unit: TimeUnit = "months"
    if task == "subtyping":
        values = values.join(_subtyping_values(table, classes, findings))
        truth, predicted = ["label"], [f"p_{name}" for name in classes]
    else:
        values = values.join(_survival_values(table, findings))
        truth, predicted = ["time", "event"], ["risk"]
        unit = _time_unit(table, findings)
    if not findings:
        _check_patients(values, truth, findings, audit.leaks if audit else frozenset())
    _refuse(findings, path)
    if task == "survival" and "time_unit" not in table:
        _refuse_implausible(values["time"], path)
    patients = _fuse_slides(values, truth, predicted)
    sha256 = hashlib.sha256(content).hexdigest()
    return Predictions(path.name, sha256, task, classes, patients, unit, select, fold_notes(path))


def _common_values(table: pd.DataFrame, findings: _Findings) -> pd.DataFrame:
    for column in ("patient_id", "slide_id"):
        findings.note(table[column].str.strip() == "", column, "is empty", f"give every row its {column}")
        findings.note(table[column].str.contains(CONTROL), column, "has control characters", "remove them")
    findings.note(~table["split"].isin(SPLITS), "split", "is not train, val or test", f"write one of {SPLITS}")
    fold = _numbers(table, "fold", findings)
    wrong = (fold % 1 > 0) | (fold < 0) | (fold > MAX_NUMBER)
    findings.note(wrong, "fold", f"is not a whole number from 0 to {MAX_NUMBER}", "number the folds 0, 1, 2, ...")
    values = table[["patient_id", "slide_id", "split"]].assign(fold=fold, shuffled=float(REAL))
    values["n_slides"] = table["slide_id"].str.count(JOINED) + 1
    if "shuffled" in table:
        written = table.assign(shuffled=table["shuffled"].replace("", str(REAL)))
        values["shuffled"] = shuffled = _numbers(written, "shuffled", findings)
        wrong = (shuffled % 1 > 0) | (shuffled < REAL) | (shuffled > MAX_NUMBER)
        findings.note(wrong, "shuffled", "is no number of a permutation", "write 0, 1, ..., or leave it empty")
    return values


def _subtyping_values(table: pd.DataFrame, classes: tuple[str, ...], findings: _Findings) -> pd.DataFrame:
    fix = f"labels are the names after `p_` in the header: {', '.join(classes)}"
    findings.note(~table["label"].isin(classes), "label", "is not one of the classes", fix)
    values = table[["label"]].copy()
    for column in (f"p_{name}" for name in classes):
        values[column] = number = _numbers(table, column, findings)
        findings.note((number < 0) | (number > 1), column, "is not a probability", "write the softmax, not the logits")
    total = values.drop(columns="label").sum(axis=1, skipna=False)
    what = "probabilities do not sum to 1"
    findings.note((total - 1).abs() > SUM_TOLERANCE, "p_*", what, "write the softmax over all classes")
    return values


def _survival_values(table: pd.DataFrame, findings: _Findings) -> pd.DataFrame:
    values = pd.DataFrame({name: _numbers(table, name, findings) for name in SURVIVAL}, index=table.index)
    fix = "give the time since diagnosis, at least 0, in one unit"
    findings.note(values["time"] < 0, "time", "is before the start of observation", fix)
    findings.note(values["time"] > MAX_TIME, "time", f"is more than {MAX_TIME:,.0f}, which is no follow-up", fix)
    fix = "give a score whose order is that of the patients, such as the log hazard"
    findings.note(values["risk"].abs() > MAX_RISK, "risk", f"is beyond {MAX_RISK:g}", fix)
    wrong = values["event"].notna() & ~values["event"].isin([0, 1])
    findings.note(wrong, "event", "is neither 0 nor 1", "1 = event observed, 0 = censored")
    return values


def _time_unit(table: pd.DataFrame, findings: _Findings) -> TimeUnit:
    """Return the unit of a table's times; months where none is written."""
    if "time_unit" not in table:
        return "months"
    written = table["time_unit"].replace("", "months")
    fix = f"write one of {', '.join(UNITS)} in every row"
    findings.note(~written.isin(UNITS), "time_unit", f"is not {', '.join(UNITS[:-1])} or {UNITS[-1]}", fix)
    findings.note(written != written.iloc[0], "time_unit", "differs between rows", fix)
    return next((unit for unit in UNITS if unit == written.iloc[0]), "months")


def _refuse_implausible(time: pd.Series, path: Path) -> None:
    """Ask for the unit of times that cannot be the months they are taken for.

    Raises:
        CohortError: They cannot.
    """
    found = implausible(time, "months")
    if found:
        said, likely = found
        fix = f"add a column time_unit with {likely or 'the unit'} in every row; or with months, if this is right"
        raise CohortError(f"without a column time_unit times are months: {said}", where=f"{path}, column time", fix=fix)


def _numbers(table: pd.DataFrame, column: str, findings: _Findings) -> pd.Series:
    """Return `column` as floats; a value that is not a finite number is noted and becomes NaN."""
    number = exact_numbers(table[column])
    findings.note(number.isna(), column, "is not a number", "write a finite decimal number in every row")
    return number


def _check_patients(values: pd.DataFrame, truth: list[str], findings: _Findings, leaks: frozenset[str]) -> None:
    """Check that a patient has one truth, a slide one patient, and a patient one part of a fold.

    `leaks` are patients whose place in two parts was accepted when the models were trained.
    """
    for column in truth:
        differs = values.groupby("patient_id")[column].transform("nunique") > 1
        findings.note(
            differs, column, "differs between rows of one patient", "a patient has one truth; correct the table"
        )
    shared = values.groupby("slide_id")["patient_id"].transform("nunique") > 1
    findings.note(shared, "slide_id", "belongs to two patients", "give each slide one patient_id")
    twice = values.duplicated(["shuffled", "fold", "slide_id", "split"], keep="first")
    findings.note(twice, "slide_id", "is predicted twice in one fold", "keep one row per slide, fold and shuffle")
    parts = values.groupby(["shuffled", "fold", "patient_id"])["split"].transform("nunique")
    fix = "split by patient: leave all slides of a patient in one part"
    leaking = (parts > 1) & ~values["patient_id"].isin(leaks)
    findings.note(leaking, "patient_id", "is in two parts of one fold (train, val, test), which leaks", fix)


def _fuse_slides(values: pd.DataFrame, truth: list[str], predicted: list[str]) -> pd.DataFrame:
    values = values.astype({"fold": int, "shuffled": int})
    groups = values.groupby(["shuffled", "fold", "split", "patient_id"], sort=True)
    parts = [groups["n_slides"].sum(), groups[truth].first(), groups[predicted].mean()]
    return pd.concat(parts, axis=1).reset_index()


def _refuse(findings: list[_Finding], path: Path) -> None:
    if len(findings) == 1:
        raise CohortError(findings[0].what, where=f"{path}, {findings[0].where}", fix=findings[0].fix)
    if findings:
        listed = "".join(f"\n  - {found.what} ({found.where}); {found.fix}" for found in findings)
        what = f"the predictions have {len(findings)} problems:{listed}"
        raise CohortError(what, where=path, fix="correct the lines above; nothing was evaluated")
