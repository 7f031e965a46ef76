"""Clinical tables -> patients with their slides, targets and sites."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd

from longvit.cohort.tables import bad_name, read_table
from longvit.config import LabelTask, SurvivalTask, Task
from longvit.formats.csv_rows import exact_numbers
from preprocessing.errors import CohortError, few


@dataclass(frozen=True)
class Cohort:
    """Patients of a task.

    Args:
        slides: Slide ids of each patient.
        targets: Row per patient, by patient id: `label`, or `time` (in the table's unit) and `event` (1 = observed).
        classes: The classes in the order of the model's outputs; empty for survival.
        left_out: Patients and slides of the tables that are not used. Their label is ignored or not among `classes`,
            or one of two tables lacks them.
        sites: The hospital of each patient, if it is known.
    """

    slides: dict[str, list[str]]
    targets: pd.DataFrame
    classes: tuple[str, ...]
    left_out: frozenset[str]
    sites: dict[str, str]

    @property
    def patient_of(self) -> dict[str, str]:
        """Return the patient of each slide."""
        return {slide: patient for patient, slides in self.slides.items() for slide in slides}

    @property
    def strata(self) -> pd.Series:
        """Return the strata that parts are balanced by: each patient's class, or whether the event was observed."""
        return self.targets["label" if self.classes else "event"]

    def without(self, slides: Collection[str]) -> "Cohort":
        """Return the cohort without these slides, and without the patients who have no other slide."""
        slides = set(slides)
        kept = {case: [s for s in owned if s not in slides] for case, owned in self.slides.items()}
        kept = {case: owned for case, owned in kept.items() if owned}
        gone = self.left_out | slides | (set(self.slides) - set(kept))
        return replace(self, slides=kept, targets=self.targets.loc[list(kept)], left_out=frozenset(gone))


def read_cohort(path: Path, task: Task, slide_table: Path | None = None, site_column: str | None = None) -> Cohort:
    """Read a table with one row per slide, or a table with one row per patient and a second one with a row per slide.

    Args:
        path: Table with `case_id` and the task's columns; and `slide_id`, unless there is a `slide_table`.
        task: Settings with the names of the columns, and the labels of each class.
        slide_table: Table with `case_id` and `slide_id`.
        site_column: Column of `path` with the hospital; without it, the site in a TCGA barcode.

    Raises:
        CohortError: A file or a column is missing, a value is missing or impossible, a slide is in two rows, or two
            rows of a patient contradict each other.
    """
    columns = task.table_columns
    needed = ["case_id", *([] if slide_table else ["slide_id"]), *columns, *([site_column] if site_column else [])]
    table = read_table(path, needed, task.missing_words)
    rows = _READERS[task.targets](table, task, path)
    rows["case_id"] = table["case_id"]
    rows["site"] = table[site_column] if site_column else table["case_id"].map(_barcode_site)
    if slide_table:
        slides = read_table(slide_table, ["case_id", "slide_id"], task.missing_words)[["case_id", "slide_id"]]
        names = {*slides["case_id"], *slides["slide_id"], *table["case_id"]}
        rows = rows.merge(slides, on="case_id")
        if rows.empty:
            fix = "use the same patient names in both tables"
            raise CohortError("no patient of the table is in the table of slides", where=slide_table, fix=fix)
    else:
        rows["slide_id"] = table["slide_id"]
        names = {*rows["case_id"], *rows["slide_id"]}
    classes = _classes(rows, task, path)
    if classes:
        rows = rows[rows["label"].isin(classes)]
    _refuse_contradictions(rows, columns, slide_table or path)
    patients = rows.groupby("case_id")
    slides_of: dict[str, list[str]] = {}
    for case, slide in sorted(zip(rows["case_id"], rows["slide_id"], strict=True), key=itemgetter(0)):
        slides_of.setdefault(case, []).append(slide)
    return Cohort(
        slides=slides_of,
        targets=patients[list(task.targets)].first(),
        classes=classes,
        left_out=frozenset(names - {*rows["case_id"], *rows["slide_id"]}),
        sites=patients["site"].first().dropna().to_dict(),
    )


def _barcode_site(case: str) -> str | None:
    """Return the tissue source site of a TCGA barcode (https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode)."""
    match = re.match(r"TCGA-(\w\w)-\w{4}", case)
    return match[1] if match else None


def _labels(table: pd.DataFrame, task: LabelTask, path: Path) -> pd.DataFrame:
    labels = table[task.label_column]
    unknown = sorted(set(task.label_map) - set(labels))
    if unknown:
        raise CohortError(
            f"task.label_map renames labels that the table does not contain: {few(unknown)}",
            where=f"{path}, column {task.label_column}, labels {few(sorted(labels.unique()), 20)}",
            fix="spell labels as in the table",
        )
    return labels.replace(task.label_map).where(~labels.isin(task.ignore)).to_frame("label")


def _times(table: pd.DataFrame, task: SurvivalTask, path: Path) -> pd.DataFrame:
    columns = task.table_columns
    numbers = table[columns].apply(exact_numbers).set_axis(["time", "status"], axis=1)
    bad = ~numbers["time"].between(0, np.inf, inclusive="left") | ~numbers["status"].isin([0, 1])
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise CohortError(
            f"{columns[0]} must be a number of at least 0 and {columns[1]} 0 or 1 "
            f"(1 = event {'observed' if task.event_column else 'not observed'}), "
            f"found {' and '.join(few([value]) for value in table[columns].iloc[first])}",
            where=f"{path}, line {table.index[first]}",
            fix="correct the row",
        )
    status = numbers["status"].astype(int)
    return pd.DataFrame({"time": numbers["time"], "event": status if task.event_column else 1 - status})


def _classes(rows: pd.DataFrame, task: Task, path: Path) -> tuple[str, ...]:
    """Return the classes, in order; refuse classes of a subtyping task that no row has."""
    if "label" not in rows:
        return ()
    found = sorted(rows["label"].dropna().unique())
    classes, where = task.all_classes(found), f"{path}, column {task.table_columns[0]}"
    absent = [name for name in classes if name not in found]
    if absent or len(classes) < 2:
        few_classes = f"there is one class: {few(found)}" if found else "every label is ignored"
        raise CohortError(
            f"the table has no patient of class {few(absent)}" if absent else few_classes,
            where=f"{where}, classes {few(found, 20)}",
            fix="set task.classes to at least two classes of the table",
        )
    for name in classes:
        if what := bad_name(name):
            raise CohortError(f"class {name[:20]!r} {what}", where=where, fix="rename it with task.label_map")
    return classes


def _refuse_contradictions(rows: pd.DataFrame, columns: list[str], where: Path) -> None:
    repeated = sorted(rows["slide_id"][rows["slide_id"].duplicated()])
    if repeated:
        fix = "keep one row of each slide"
        raise CohortError(f"slides are in two rows: {few(repeated)}", where=where, fix=fix)
    targets = rows.drop(columns=["slide_id", "site"]).groupby("case_id").nunique()
    torn = sorted(targets.index[(targets > 1).any(axis=1)])
    if torn:
        raise CohortError(
            f"patients have rows that contradict each other in {', '.join(columns)}: {few(torn)}",
            where=where,
            fix="give all slides of a patient the same values",
        )


_READERS = {LabelTask.targets: _labels, SurvivalTask.targets: _times}
"""Reader of the targets of each kind, by their columns."""
