"""Schema of predictions.csv: one row per sequence that a model read (a slide, or several slides of a patient joined).

| Columns | Values |
|---|---|
| `patient_id` | patient |
| `slide_id` | slide, or the slides of the sequence joined by `;` |
| `fold` | number of the fold, or `ensemble` for the mean over all folds |
| `split` | part of the fold: train, val or test |
| `shuffled` | optional: permutation of labels that the model was trained on; empty or -1 for the real labels |
| `seen_by` | ensemble: folds whose model was trained on the patient, joined by `;` |
| `models` | ensemble: folds whose models were averaged, joined by `;` |
| the columns of one task in `TASKS` | true target and prediction |
| `sd_<class>` or `sd_risk` | ensemble: standard deviation over the models |
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import pandas as pd

from longvit.config import PARTS, TimeUnit
from longvit.formats.bounded import read_bytes
from longvit.formats.csv_rows import JOINED, NAMED, Bounds, bounded_rows, read_rows, string_table, write_rows
from longvit.formats.table_problems import Problems
from preprocessing.errors import CohortError, few, short

PREDICTIONS = "predictions.csv"
IDENTITY = ("patient_id", "slide_id", "fold", "split")
"""Columns that every file has."""
SHUFFLED, TIME_UNIT = "shuffled", "time_unit"
"""Columns that a file may lack; times without `time_unit` are months."""
PROBABILITY = "p_"
"""Prefix of the column with the probability of a class."""
ENSEMBLE = "ensemble"
"""Value of `fold` in rows that the models of all folds made together."""
REAL = -1
"""Value of `shuffled` for models that were trained on the real labels."""
UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
SUM_TOLERANCE = 1e-3
"""Largest difference between 1 and the sum of a row's probabilities: files are written with four digits or more."""
MAX_NUMBER, MAX_TIME, MAX_RISK = 999_999, 1e6, 1e100
"""Largest number of a fold or shuffle, largest time in any unit, and largest risk whose square is finite."""
MAX_CLASSES, MAX_NAME = 100, 100
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
EXPECTED = "give a predictions.csv as `longvit finetune` writes it: UTF-8, commas, one header line"
BOUNDS = Bounds(100_000_000, 250_000, "the predictions have", EXPECTED, "evaluate fewer folds or shuffles at once")

Task = Literal["subtyping", "survival"]
"""Question that predictions answer; a key of `TASKS`."""


class TaskColumns(NamedTuple):
    """Columns of one task, and the check of their values."""

    truth: tuple[str, ...]
    """True target of the patient, the same in all rows of the patient."""
    predicted: tuple[str, ...]
    """Columns of the prediction, except the probabilities of classes."""
    optional: tuple[str, ...]
    """Columns that a file may lack."""
    has_classes: bool
    """True if the prediction is a probability per class, `p_<class>`."""
    check: Callable[[pd.DataFrame, tuple[str, ...], Problems], pd.DataFrame]
    """Function (strings, classes, problems) -> values of the task's columns; adds errors to the problems."""

    def prediction(self, classes: Iterable[str]) -> list[str]:
        """Return the columns of the prediction."""
        return [*self.predicted, *(f"{PROBABILITY}{name}" for name in classes)]

    def is_in(self, header: Sequence[str]) -> bool:
        """Return whether a header has any column of the task."""
        own = {*self.truth, *self.predicted}
        return any(name in own or (self.has_classes and name.startswith(PROBABILITY)) for name in header)

    def __str__(self) -> str:
        return ", ".join((*self.truth, *self.predicted, *([f"{PROBABILITY}<class>..."] if self.has_classes else [])))


@dataclass(frozen=True)
class PredictionTable:
    """Checked content of a predictions.csv.

    Attributes:
        sha256: Hash of the file.
        task: Task whose columns the file has.
        classes: Class names in the order of the file's `p_<class>` columns; empty for survival.
        rows: One row per sequence, indexed by line: `patient_id, slide_id, fold, split, shuffled`, `n_slides` of the
            sequence, and the columns of the task as numbers (`label` as a string).
        time_unit: Unit of the times; None if the file does not state it.
    """

    sha256: str
    task: Task
    classes: tuple[str, ...]
    rows: pd.DataFrame
    time_unit: TimeUnit | None

    @property
    def patient_of(self) -> dict[str, str]:
        """Patient of each slide."""
        pairs = zip(self.rows["slide_id"], self.rows["patient_id"], strict=True)
        return {slide: patient for joined, patient in pairs for slide in joined.split(JOINED)}


def sequence_columns(patient: str, slides: Iterable[str]) -> dict[str, str]:
    """Return the first two columns of a sequence's row."""
    return {"patient_id": patient, "slide_id": JOINED.join(slides)}


def write_predictions(path: Path, rows: Sequence[Mapping]) -> None:
    """Write rows as a predictions.csv through a temporary name.

    Args:
        path: Path of the file.
        rows: Values by column; rows from `read_prediction_rows` become the same bytes again.
    """
    write_rows(path, rows)


def read_prediction_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a predictions.csv of this program as strings, without checking them."""
    return read_rows(path)


def read_prediction_table(path: Path, leaks: frozenset[str] = frozenset()) -> PredictionTable:
    """Read a predictions.csv of any origin and check all values; all problems of a file are in one error.

    Args:
        path: Path of the file.
        leaks: Patients that may be in two parts of a fold, because the leak was accepted before the training.

    Raises:
        CohortError: The file cannot be read, is larger than `BOUNDS`, or has columns or lines that cannot be evaluated.
    """
    content = read_bytes(path, BOUNDS.max_bytes, EXPECTED)
    rows = bounded_rows(content, path, BOUNDS)
    header = next(rows)[1]
    task, classes = _task(header, path)
    columns = TASKS[task]
    used = {*IDENTITY, SHUFFLED, *columns.truth, *columns.optional, *columns.prediction(classes)}
    table = string_table(rows, header, used, path)
    problems = Problems(table)
    values = _common_values(table, problems).join(columns.check(table, classes, problems))
    unit = _time_unit(table, problems) if TIME_UNIT in table else None
    if not problems:
        _check_patients(values, columns.truth, problems, leaks)
    problems.refuse(path)
    values = values.astype({"fold": int, SHUFFLED: int})
    return PredictionTable(hashlib.sha256(content).hexdigest(), task, classes, values, unit)


def _task(header: list[str], path: Path) -> tuple[Task, tuple[str, ...]]:
    """Return the task and the classes of a header's columns."""
    found: list[Task] = [task for task, columns in TASKS.items() if columns.is_in(header)]
    if len(found) != 1:
        what = f"the columns belong to {' and '.join(found)} at once" if found else "the task is not clear"
        fix = f"keep either {' or '.join(f'`{columns}`' for columns in TASKS.values())}; two tasks are two files"
        raise CohortError(what, where=f"{path}, line 1: {few(header, NAMED)}", fix=fix)
    columns = TASKS[found[0]]
    classes = tuple(name.removeprefix(PROBABILITY) for name in header if name.startswith(PROBABILITY))
    missing = [f"`{name}`" for name in (*IDENTITY, *columns.truth, *columns.predicted) if name not in header]
    if columns.has_classes and len(classes) < 2:
        missing.append(f"two or more `{PROBABILITY}<class>`")
    if missing:
        fix = f"columns must be {', '.join(IDENTITY)}, then {' or '.join(map(str, TASKS.values()))}"
        raise CohortError(f"columns are missing: {', '.join(missing)}", where=f"{path}, line 1", fix=fix)
    _refuse_classes(classes, path)
    return found[0], classes


def _refuse_classes(classes: tuple[str, ...], path: Path) -> None:
    where, fix = f"{path}, line 1", f"name each class in a column {PROBABILITY}<class>"
    if len(classes) > MAX_CLASSES:
        raise CohortError(f"there are {len(classes):,} classes, more than {MAX_CLASSES}", where=where, fix=fix)
    odd = [short(name) for name in classes if not name.strip() or len(name) > MAX_NAME or CONTROL.search(name)]
    if odd:
        what = f"a class has no name, a name of more than {MAX_NAME} characters, or control characters: {odd[0]!r}"
        raise CohortError(what, where=where, fix=fix)


def _common_values(table: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """Return the values of the columns that all tasks have."""
    for column in ("patient_id", "slide_id"):
        problems.note(table[column].str.strip() == "", column, "is empty", f"give every row its {column}")
        problems.note(table[column].str.contains(CONTROL), column, "has control characters", "remove them")
    problems.note(~table["split"].isin(PARTS), "split", "is not train, val or test", f"write one of {PARTS}")
    fold = problems.numbers("fold")
    wrong = (fold % 1 > 0) | (fold < 0) | (fold > MAX_NUMBER)
    problems.note(wrong, "fold", f"is not a whole number from 0 to {MAX_NUMBER}", "number the folds 0, 1, 2, ...")
    values = table[["patient_id", "slide_id", "split"]].assign(fold=fold, shuffled=float(REAL))
    values["n_slides"] = table["slide_id"].str.count(JOINED) + 1
    if SHUFFLED in table:
        table[SHUFFLED] = table[SHUFFLED].replace("", str(REAL))
        values[SHUFFLED] = shuffled = problems.numbers(SHUFFLED)
        wrong = (shuffled % 1 > 0) | (shuffled < REAL) | (shuffled > MAX_NUMBER)
        problems.note(wrong, SHUFFLED, "is not the number of a permutation", "write 0, 1, ..., or leave it empty")
    return values


def _subtyping_values(table: pd.DataFrame, classes: tuple[str, ...], problems: Problems) -> pd.DataFrame:
    fix = f"labels are the names after `{PROBABILITY}` in the header: {', '.join(classes)}"
    problems.note(~table["label"].isin(classes), "label", "is not one of the classes", fix)
    values = table[["label"]].copy()
    for column in (f"{PROBABILITY}{name}" for name in classes):
        values[column] = number = problems.numbers(column)
        problems.note((number < 0) | (number > 1), column, "is not a probability", "write the softmax, not the logits")
    total = values.drop(columns="label").sum(axis=1, skipna=False)
    what = "probabilities do not sum to 1"
    problems.note((total - 1).abs() > SUM_TOLERANCE, f"{PROBABILITY}*", what, "write the softmax over all classes")
    return values


def _survival_values(table: pd.DataFrame, classes: tuple[str, ...], problems: Problems) -> pd.DataFrame:
    values = pd.DataFrame({name: problems.numbers(name) for name in ("time", "event", "risk")}, index=table.index)
    fix = "give the time since diagnosis, at least 0, in one unit"
    problems.note(values["time"] < 0, "time", "is before the start of observation", fix)
    problems.note(values["time"] > MAX_TIME, "time", f"is more than {MAX_TIME:,.0f}, longer than any follow-up", fix)
    fix = "give a score that orders the patients, such as the log hazard"
    problems.note(values["risk"].abs() > MAX_RISK, "risk", f"is beyond {MAX_RISK:g}", fix)
    wrong = values["event"].notna() & ~values["event"].isin([0, 1])
    problems.note(wrong, "event", "is neither 0 nor 1", "1 = event observed, 0 = censored")
    return values


def _time_unit(table: pd.DataFrame, problems: Problems) -> TimeUnit:
    """Return the unit of the times; an empty cell means months."""
    written = table[TIME_UNIT].replace("", "months")
    fix = f"write one of {', '.join(UNITS)} in every row"
    problems.note(~written.isin(UNITS), TIME_UNIT, f"is not {', '.join(UNITS[:-1])} or {UNITS[-1]}", fix)
    problems.note(written != written.iloc[0], TIME_UNIT, "differs between rows", fix)
    first = written.iloc[0]
    return first if first in UNITS else "months"


def _check_patients(values: pd.DataFrame, truth: tuple[str, ...], problems: Problems, leaks: frozenset[str]) -> None:
    """Check that a patient has one truth and one part per fold (except `leaks`), and a slide one patient."""
    for column in truth:
        differs = values.groupby("patient_id")[column].transform("nunique") > 1
        problems.note(
            differs, column, "differs between rows of one patient", "a patient has one truth; correct the table"
        )
    shared = values.groupby("slide_id")["patient_id"].transform("nunique") > 1
    problems.note(shared, "slide_id", "belongs to two patients", "give each slide one patient_id")
    twice = values.duplicated([SHUFFLED, "fold", "slide_id", "split"], keep="first")
    problems.note(twice, "slide_id", "is predicted twice in one fold", "keep one row per slide, fold and shuffle")
    parts = values.groupby([SHUFFLED, "fold", "patient_id"])["split"].transform("nunique")
    fix = "split by patient: leave all slides of a patient in one part"
    leaking = (parts > 1) & ~values["patient_id"].isin(leaks)
    problems.note(leaking, "patient_id", "is in two parts of one fold (train, val, test), which leaks", fix)


TASKS: dict[Task, TaskColumns] = {
    "subtyping": TaskColumns(("label",), (), (), has_classes=True, check=_subtyping_values),
    "survival": TaskColumns(("time", "event"), ("risk",), (TIME_UNIT,), has_classes=False, check=_survival_values),
}
"""Columns of each kind of prediction. `longvit.evaluation` has numbers and figures for each of them."""
