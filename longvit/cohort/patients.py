"""Clinical tables -> patients with their slides, targets and sites."""

import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import pandas as pd

from longvit.cohort.columns import PATIENT, SLIDE, find_column
from longvit.cohort.known_tables import fit_task, known_names
from longvit.cohort.tables import bad_name, barcodes, name_rows, read_strings, refuse_gaps
from longvit.cohort.targets import read_labels, read_times
from longvit.config import LabelTask, SurvivalTask, Task
from preprocessing.errors import CohortError, few, printable

_NORMAL = re.compile(r"TCGA-\w{2}-\w{4}-1\d")
"""Barcode of a sample of normal tissue (https://gdc.cancer.gov/resources-tcga-users/tcga-code-tables)."""


@dataclass(frozen=True)
class Cohort:
    """Patients of a task.

    Args:
        slides: Slide ids of each patient.
        targets: Row per patient, by patient id: `label`, or `time` (in the task's unit) and `event` (1 = observed).
        classes: The classes in the order of the model's outputs; empty for survival.
        left_out: Patients and slides of the tables that are not used. Their label is ignored or not among `classes`,
            or one of two tables lacks them.
        sites: The hospital of each patient, if it is known.
        task: The task, with the columns and the unit of this table.
        unknown: Patients who are left out because they have no label, or no time and status.
        flow: Numbers of patients after each step of reading, by the step's name.
    """

    slides: dict[str, list[str]]
    targets: pd.DataFrame
    classes: tuple[str, ...]
    left_out: frozenset[str]
    sites: dict[str, str]
    task: Task
    unknown: tuple[str, ...] = ()
    flow: tuple[tuple[str, int], ...] = ()

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


def read_cohort(
    path: Path,
    task: Task,
    slide_table: Path | None = None,
    site_column: str | None = None,
    stores: Iterable[str] = (),
) -> Cohort:
    """Read a table with one row per slide; or one with rows of patients, whose slides are named elsewhere.

    Args:
        path: Table with patients and the task's columns, in the layout of a known table or with columns that the task
            names; and with slides, unless there is a `slide_table`.
        task: Settings.
        slide_table: Table with patients and slides.
        site_column: Column of `path` with the hospital; without it, the site in a TCGA barcode.
        stores: Slides that have a store. Where no table has slides, these are matched to patients by TCGA barcode,
            without the slides of normal tissue.

    Raises:
        CohortError: A file or a column is missing, a value of a patient with slides is missing or impossible, a slide
            is in two rows, or two rows of a patient contradict each other.
    """
    table, task = _read_rows(path, task, slide_table, site_column, stores)
    slides = table[["case_id", "slide_id"]] if "slide_id" in table else _slides_elsewhere(slide_table, stores, task)
    used = table[table["case_id"].isin(slides["case_id"])]
    if used.empty:
        what = f"no patient of the table is in {'the table of slides' if slide_table else 'the barcodes of the stores'}"
        met = f"{table['case_id'].iloc[0]} here, {few(list(slides['case_id'])[:1]) or 'none'} there"
        fix = f"use the same patient names in both; the first are {met}"
        raise CohortError(what, where=slide_table or path, fix=fix)
    rows = _READERS[task.targets](used, task, path)
    rows["case_id"] = used["case_id"]
    classes = _classes(rows, task, path)
    if classes:
        rows = rows[rows["label"].isin(classes) | rows["label"].isna()]
    names = {*table["case_id"], *slides["case_id"], *slides["slide_id"]}
    slides = slides.loc[rows.index] if "slide_id" in table else slides[slides["case_id"].isin(rows["case_id"])]
    _refuse_repeated(slides["slide_id"], slide_table or path)
    targets, unknown = _fold(rows, task, path)
    slides_of: dict[str, list[str]] = {}
    for case, slide in sorted(zip(slides["case_id"], slides["slide_id"], strict=True), key=itemgetter(0)):
        if case in targets.index:
            slides_of.setdefault(case, []).append(slide)
    hospitals = used[site_column] if site_column else used["case_id"].map(_barcode_site)
    sites = hospitals.groupby(used["case_id"]).first().dropna()
    steps = {"in the table": table["case_id"], "with a slide": used["case_id"]}
    steps |= {"of the task's classes": rows["case_id"]} if classes else {}
    flow = [(step, int(names_of.nunique())) for step, names_of in steps.items()]
    cohort = Cohort(
        slides_of,
        targets,
        classes,
        left_out=frozenset(),
        sites={str(case): site for case, site in sites.items() if case in slides_of},
        task=task,
        unknown=unknown,
        flow=(*flow, ("with a known target", len(targets))),
    )
    return replace(cohort, left_out=frozenset(names - set(slides_of) - set(cohort.patient_of)))


def _read_rows(
    path: Path, task: Task, slide_table: Path | None, site_column: str | None, stores: Iterable[str]
) -> tuple[pd.DataFrame, Task]:
    """Return the rows, with `case_id`, with `slide_id` if the slides are named here; and the task for their columns."""
    others = [site_column] if site_column else []
    table = read_strings(path, missing=task.missing_words, wanted=[*known_names(task), *others])
    columns = list(table.columns)
    task, said = fit_task(task, columns, path)
    if said:
        print(printable(f"note: {path} {said}"), file=sys.stderr)
    others += task.source_columns
    absent = [name for name in others if name not in columns]
    if absent:
        where = f"{path}, columns: {few(columns, 12)}"
        fix = "name the right column in the config (task.label_column, ...)"
        raise CohortError(f"the table has no column {' nor '.join(absent)}", where=where, fix=fix)
    here = slide_table is None and (task.slide_column or find_column(columns, SLIDE) or not stores)
    needed = {"case_id", "slide_id"} if here else {"case_id"}
    slides_are_patients = task.patient == "slide"
    names = task.patient_column, task.slide_column
    table = name_rows(table, path, needed, *names, slides_are_patients=slides_are_patients)
    if site_column:
        refuse_gaps(table[site_column], path)
    return table[list(dict.fromkeys([*sorted(needed), *others]))], task


def _slides_elsewhere(slide_table: Path | None, stores: Iterable[str], task: Task) -> pd.DataFrame:
    """Return the slides of patients by a table of slides, or else by the barcodes of the stores."""
    if slide_table:
        raw = read_strings(slide_table, missing=task.missing_words, wanted=(*PATIENT, *SLIDE))
        named = [name if name in raw else None for name in (task.patient_column, task.slide_column)]
        return name_rows(raw, slide_table, {"case_id", "slide_id"}, *named)
    owners = barcodes(stores)
    normal = [slide for slide in owners if _NORMAL.match(slide)]
    if normal:
        said = f"note: {len(normal)} slides of normal tissue are left out, by their barcodes: {few(normal)}"
        print(printable(said), file=sys.stderr)
    kept = [(case, slide) for slide, case in owners.items() if slide not in set(normal)]
    return pd.DataFrame(kept, columns=["case_id", "slide_id"], dtype=object)


def _fold(rows: pd.DataFrame, task: Task, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return one row of targets per patient, and the patients who are left out because a target is missing.

    Raises:
        CohortError: Rows of a patient contradict each other; or targets are missing, and are not to be left out or no
            patient has them.
    """
    groups = rows.groupby("case_id")
    torn = groups[list(task.targets)].nunique().gt(1).any(axis=1)
    columns = " and ".join(task.source_columns)
    if torn.any():
        names = sorted(torn.index[torn])
        lines = ", ".join(map(str, rows.index[rows["case_id"] == names[0]][:5]))
        raise CohortError(
            f"patients have rows that contradict each other in {columns}: {few(names)}",
            where=f"{path}, lines {lines}",
            fix="give all rows of a patient the same values",
        )
    targets = groups[list(task.targets)].first()
    unknown = sorted(targets.index[targets.isna().any(axis=1)])
    none_left = len(unknown) == len(targets)
    if none_left or (unknown and task.missing == "refuse"):
        raise CohortError(
            f"{len(unknown)} of {len(targets)} patients with slides have no {columns}: {few(unknown)}",
            where=f"{path}, line {rows.index[rows['case_id'] == unknown[0]][0]}",
            fix="fill in the values, or name other columns in the config (task.label_column, task.time_column, ...)"
            if none_left
            else "fill in the value, or leave these patients out with --task.missing leave-out",
        )
    targets = targets.drop(unknown)
    if "event" in targets:
        targets = targets.astype({"event": int})
    return targets, tuple(unknown)


def _barcode_site(case: str) -> str | None:
    """Return the tissue source site of a TCGA barcode (https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode)."""
    match = re.match(r"TCGA-(\w\w)-\w{4}", case)
    return match[1] if match else None


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


def _refuse_repeated(slides: pd.Series, where: Path) -> None:
    repeated = sorted(slides[slides.duplicated()])
    if repeated:
        fix = "keep one row of each slide"
        raise CohortError(f"slides are in two rows: {few(repeated)}", where=where, fix=fix)


_READERS = {LabelTask.targets: read_labels, SurvivalTask.targets: read_times}
"""Reader of the targets of each kind, by their columns."""
