"""predictions.csv -> one row per patient and fold. Refuses what cannot be evaluated, and says all of it at once."""

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from longvit.evaluation.audit import read_audit
from preprocessing.errors import CohortError

REAL = -1
"""Value of `shuffled` for models that were trained on the real labels."""
IDENTITY = ("patient_id", "slide_id", "fold", "split")
SURVIVAL = ("time", "event", "risk")
SPLITS = ("train", "val", "test")
SUM_TOLERANCE = 1e-3
"""How far from 1 the probabilities of a row may sum: files are written with four digits or more."""
NAMED_LINES = 5
EXPECTED = "give a predictions.csv as `longvit finetune` writes it: UTF-8, commas, one header line"

Task = Literal["subtyping", "survival"]


@dataclass(frozen=True)
class Predictions:
    """Predictions per patient: slides of a patient are averaged within a fold (late fusion).

    Attributes:
        file: Name of the file they were read from.
        sha256: Hash of that file.
        task: What was predicted.
        classes: Class names in the order of the file's `p_<class>` columns; empty for survival.
        patients: One row per (shuffled, fold, split, patient_id), with `n_slides` and then `label, p_<class>...`
            or `time` (months), `event` (1 observed), `risk` (higher = earlier event).
    """

    file: str
    sha256: str
    task: Task
    classes: tuple[str, ...]
    patients: pd.DataFrame

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
            value = f": {self.table.loc[lines[0], column]!r}" if column in self.table else ""
            self.append(_Finding(f"`{column}` {what}{value}", f"column {column}, {_name_lines(lines)}", fix))


def read_predictions(path: Path) -> Predictions:
    """Read and check a `predictions.csv`.

    Columns: `patient_id, slide_id, fold, split`, then `label, p_<class>...` or `time, event, risk`, one row per slide;
    optionally `shuffled`: the permutation of labels that the model was trained on (empty or -1: the real labels).
    A patient in two parts of a fold is refused, unless the `audit.json` beside the file says that this was accepted.

    Raises:
        CohortError: Naming every column and line that cannot be evaluated; or the audit cannot be read.
    """
    content, audit = _read_bytes(path), read_audit(path)
    table = _read_strings(content, path)
    task, classes = _task(table, path)
    findings = _Findings(table)
    values = _common_values(table, findings)
    if task == "subtyping":
        values = values.join(_subtyping_values(table, classes, findings))
        truth, predicted = ["label"], [f"p_{name}" for name in classes]
    else:
        values = values.join(_survival_values(table, findings))
        truth, predicted = ["time", "event"], ["risk"]
    if not findings:
        _check_patients(values, truth, findings, audit.leaks if audit else frozenset())
    _refuse(findings, path)
    patients = _fuse_slides(values, truth, predicted)
    return Predictions(path.name, hashlib.sha256(content).hexdigest(), task, classes, patients)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CohortError(f"the predictions cannot be read ({error.strerror})", where=path, fix=EXPECTED) from error


def _read_strings(content: bytes, path: Path) -> pd.DataFrame:
    """The table as strings; the index is the line number."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        lines = [(reader.line_num, row) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"the predictions are no CSV file ({error})", where=path, fix=EXPECTED) from error
    if len(lines) < 2:
        raise CohortError("the predictions have no rows", where=path, fix=EXPECTED)
    header = lines[0][1]
    ragged = [number for number, row in lines[1:] if len(row) != len(header)]
    if ragged:
        what = f"a row has not the {len(header)} values that the header names"
        raise CohortError(what, where=f"{path}, {_name_lines(ragged)}", fix="quote values that contain a comma")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        what = f"columns appear twice: {', '.join(repeated)}"
        raise CohortError(what, where=f"{path}, line 1", fix="leave one column of each name")
    return pd.DataFrame([row for _, row in lines[1:]], columns=header, index=[n for n, _ in lines[1:]], dtype=str)


def _task(table: pd.DataFrame, path: Path) -> tuple[Task, tuple[str, ...]]:
    classes = tuple(name.removeprefix("p_") for name in table.columns if name.startswith("p_"))
    subtyping = "label" in table or bool(classes)
    survival = any(name in table for name in SURVIVAL)
    if subtyping == survival:
        what = "the columns are those of subtyping and of survival at once" if survival else "the task is not clear"
        fix = "keep either `label, p_<class>...` or `time, event, risk`; two tasks are two files"
        raise CohortError(what, where=f"{path}, line 1: {', '.join(table.columns)}", fix=fix)
    needed = IDENTITY + (SURVIVAL if survival else ("label",))
    missing = [f"`{name}`" for name in needed if name not in table]
    if subtyping and len(classes) < 2:
        missing.append("two or more `p_<class>`")
    if missing:
        fix = f"columns must be {', '.join(IDENTITY)}, then label, p_<class>... or time, event, risk"
        raise CohortError(f"columns are missing: {', '.join(missing)}", where=f"{path}, line 1", fix=fix)
    return ("survival", ()) if survival else ("subtyping", classes)


def _common_values(table: pd.DataFrame, findings: _Findings) -> pd.DataFrame:
    for column in ("patient_id", "slide_id"):
        findings.note(table[column].str.strip() == "", column, "is empty", f"give every row its {column}")
    findings.note(~table["split"].isin(SPLITS), "split", "is not train, val or test", f"write one of {SPLITS}")
    fold = _numbers(table, "fold", findings)
    findings.note(fold % 1 > 0, "fold", "is not a whole number", "number the folds 0, 1, 2, ...")
    values = table[["patient_id", "slide_id", "split"]].assign(fold=fold, shuffled=float(REAL))
    if "shuffled" in table:
        written = table.assign(shuffled=table["shuffled"].replace("", str(REAL)))
        values["shuffled"] = shuffled = _numbers(written, "shuffled", findings)
        wrong = (shuffled % 1 > 0) | (shuffled < REAL)
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
    findings.note(values["time"] < 0, "time", "is before the start of observation", "give months since diagnosis, >= 0")
    wrong = values["event"].notna() & ~values["event"].isin([0, 1])
    findings.note(wrong, "event", "is neither 0 nor 1", "1 = event observed, 0 = censored")
    return values


def _numbers(table: pd.DataFrame, column: str, findings: _Findings) -> pd.Series:
    """`column` as floats; what is no finite number is noted and becomes NaN."""
    number = pd.to_numeric(table[column], errors="coerce").astype(float)
    number = number.where(np.isfinite(number))
    findings.note(number.isna(), column, "is not a number", "write a finite decimal number in every row")
    return number


def _check_patients(values: pd.DataFrame, truth: list[str], findings: _Findings, leaks: frozenset[str]) -> None:
    """What no single row shows: one truth per patient, one patient per slide, one part of a fold per patient.

    `leaks` are patients whose place in two parts was accepted when the models were trained.
    """
    for column in truth:
        differs = values.groupby("patient_id")[column].transform("nunique") > 1
        findings.note(differs, column, "differs between rows of one patient", "a patient has one truth; mend the table")
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
    parts = [groups.size().rename("n_slides"), groups[truth].first(), groups[predicted].mean()]
    return pd.concat(parts, axis=1).reset_index()


def _refuse(findings: list[_Finding], path: Path) -> None:
    if len(findings) == 1:
        raise CohortError(findings[0].what, where=f"{path}, {findings[0].where}", fix=findings[0].fix)
    if findings:
        listed = "".join(f"\n  - {found.what} ({found.where}); {found.fix}" for found in findings)
        what = f"the predictions have {len(findings)} problems:{listed}"
        raise CohortError(what, where=path, fix="mend the lines above; nothing was evaluated")


def _name_lines(lines: pd.Index | list[int]) -> str:
    named = ", ".join(str(line) for line in lines[:NAMED_LINES])
    more = f" and {len(lines) - NAMED_LINES} more" if len(lines) > NAMED_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {named}{more}"
