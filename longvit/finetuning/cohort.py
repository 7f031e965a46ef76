"""Clinical tables as the field publishes them -> patients with their slides and targets."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from longvit.config import CoxTask, SubtypeTask
from preprocessing.errors import CohortError

Task = SubtypeTask | CoxTask
_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".dcm", ".scn", ".zarr")


@dataclass(frozen=True)
class Cohort:
    """Patients of a task.

    Args:
        slides: Slide ids of each patient.
        targets: A row per patient, by patient id: `label`, or `time` (in the table's unit) and `event` (1 = observed).
        classes: The classes in the order of the model's outputs; empty for survival.
        left_out: Patients of the table whose class is not among `classes`, and their slides.
    """

    slides: dict[str, list[str]]
    targets: pd.DataFrame
    classes: tuple[str, ...]
    left_out: frozenset[str]

    @property
    def patient_of(self) -> dict[str, str]:
        """The patient of each slide."""
        return {slide: patient for patient, slides in self.slides.items() for slide in slides}


def read_cohort(path: Path, task: Task) -> Cohort:
    """Read a table with a row per slide: `case_id`, `slide_id` and the task's columns.

    Raises:
        CohortError: The file or a column is missing, a value is missing or impossible, a slide stands in two rows, or
            two rows of a patient contradict each other.
    """
    columns = [task.label_column] if isinstance(task, SubtypeTask) else [task.time_column, task.censorship_column]
    table = _read_table(path, ["case_id", "slide_id", *columns])
    table["slide_id"] = table["slide_id"].map(slide_name)
    repeated = sorted(table["slide_id"][table["slide_id"].duplicated()])
    if repeated:
        raise CohortError(f"slides stand in two rows: {few(repeated)}", where=path, fix="keep one row of each slide")
    targets = _subtypes(table, task) if isinstance(task, SubtypeTask) else _survival(table, task, path)
    per_patient = targets.groupby(table["case_id"]).nunique()
    torn = sorted(per_patient.index[(per_patient > 1).any(axis=1)])
    if torn:
        raise CohortError(
            f"patients whose rows contradict each other in {', '.join(columns)}: {few(torn)}",
            where=path,
            fix="give all slides of a patient the same values",
        )
    targets = targets.groupby(table["case_id"]).first()
    slides = {str(case): list(group) for case, group in table.groupby("case_id")["slide_id"]}
    return _choose_classes(slides, targets, task, path)


def slide_name(name: str) -> str:
    """A slide id without the file ending that some tables append."""
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def few(names: list[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_strings(path: Path) -> pd.DataFrame:
    """A CSV, zipped or not, with every value as it is written.

    Raises:
        CohortError: It is not CSV.
    """
    try:
        return pd.read_csv(path, dtype=str)
    except (ValueError, BadZipFile) as error:
        raise CohortError(f"the table cannot be read as CSV: {error}", where=path, fix="export it as CSV") from None


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise CohortError("the table does not exist", where=path, fix="check the path")
    table = read_strings(path)
    missing = [name for name in columns if name not in table]
    if missing:
        raise CohortError(
            f"the table has no column {' nor '.join(missing)}",
            where=f"{path}, columns: {few(list(table.columns), 12)}",
            fix="rename the column, or name yours in the config (task.label_column, task.time_column, ...)",
        )
    for name in columns:
        empty = np.flatnonzero(table[name].isna())
        if len(empty):
            raise CohortError(
                f"{len(empty)} of {len(table)} rows have no {name}",
                where=f"{path}, line {empty[0] + 2}",
                fix="fill in the value, or remove the row",
            )
    return table


def _subtypes(table: pd.DataFrame, task: SubtypeTask) -> pd.DataFrame:
    return table[[task.label_column]].set_axis(["label"], axis=1)


def _survival(table: pd.DataFrame, task: CoxTask, path: Path) -> pd.DataFrame:
    columns = [task.time_column, task.censorship_column]
    numbers = table[columns].apply(pd.to_numeric, errors="coerce").set_axis(["time", "censorship"], axis=1)
    bad = ~numbers["time"].between(0, np.inf, inclusive="left") | ~numbers["censorship"].isin([0, 1])
    if bad.any():
        line = int(np.flatnonzero(bad)[0])
        raise CohortError(
            f"{columns[0]} must be a number of at least 0 and {columns[1]} 0 or 1 (1 = event not observed), "
            f"found {table[columns[0]][line]} and {table[columns[1]][line]}",
            where=f"{path}, line {line + 2}",
            fix="mend the row",
        )
    return pd.DataFrame({"time": numbers["time"], "event": 1 - numbers["censorship"].astype(int)})


def _choose_classes(slides: dict[str, list[str]], targets: pd.DataFrame, task: Task, path: Path) -> Cohort:
    if not isinstance(task, SubtypeTask):
        return Cohort(slides, targets, (), frozenset())
    found = sorted(targets["label"].unique())
    classes = task.classes or tuple(found)
    absent = [name for name in classes if name not in found]
    if absent or len(classes) < 2:
        raise CohortError(
            f"the table has no patient of class {', '.join(absent)}" if absent else f"there is one class: {found[0]}",
            where=f"{path}, column {task.label_column}, classes {', '.join(found)}",
            fix="set task.classes to at least two classes of the table",
        )
    chosen = targets[targets["label"].isin(classes)]
    others = targets.index.difference(chosen.index)
    left_out = frozenset([*others, *(slide for case in others for slide in slides[case])])
    return Cohort({case: slides[case] for case in chosen.index}, chosen, classes, left_out)
