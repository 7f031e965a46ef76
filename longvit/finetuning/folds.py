"""Published splits -> folds of patients, refused when a patient stands in two parts."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from longvit.finetuning.cohort import Cohort, few, read_strings, slide_name
from preprocessing.errors import CohortError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Fold:
    """Patients of each part of one fold; `test` is empty where the published split has no such column."""

    index: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def held_out(self) -> str:
        """The part that results are reported on: test, or val in splits that have only train and val."""
        return "test" if self.test else "val"


def read_folds(folder: Path, cohort: Cohort, wanted: tuple[int, ...] | None = None) -> list[Fold]:
    """Read `splits_<k>.csv` files with columns train, val and test of slide ids or case ids.

    Raises:
        CohortError: No splits, a wanted fold or a column is missing, a name that the table does not have, or a patient
            in two parts of a fold.
    """
    files = {int(m[1]): path for path in folder.glob("splits_*.csv") if (m := re.fullmatch(r"splits_(\d+)", path.stem))}
    if not files:
        raise CohortError("there is no splits_<k>.csv", where=folder, fix="check the path of the folder of splits")
    missing = sorted(set(wanted or ()) - set(files))
    if missing:
        raise CohortError(
            f"there is no splits_{missing[0]}.csv",
            where=folder,
            fix=f"folds present: {', '.join(map(str, sorted(files)))}",
        )
    return [_read_fold(k, files[k], cohort) for k in sorted(files) if wanted is None or k in wanted]


def _read_fold(index: int, path: Path, cohort: Cohort) -> Fold:
    table = read_strings(path)
    absent = [part for part in PARTS[:2] if part not in table]
    if absent:
        raise CohortError(f"the split has no column {absent[0]}", where=path, fix="add the columns train, val and test")
    parts = {part: _patients(table[part], cohort) if part in table else () for part in PARTS}
    _refuse_leaks(parts, path)
    _refuse_strangers(table, path, cohort)
    for part in PARTS[:2]:
        if not parts[part]:
            raise CohortError(f"no patient of the table is in {part}", where=path, fix="use splits made for this table")
    return Fold(index, **parts)


def _patients(names: pd.Series, cohort: Cohort) -> tuple[str, ...]:
    """Patients of a column, in its order, whether it names slides or cases."""
    patient_of = cohort.patient_of | {case: case for case in cohort.slides}
    return tuple(dict.fromkeys(patient_of[name] for name in map(slide_name, names.dropna()) if name in patient_of))


def _refuse_strangers(table: pd.DataFrame, path: Path, cohort: Cohort) -> None:
    known = {*cohort.patient_of, *cohort.slides, *cohort.left_out}
    names = [name for part in PARTS if part in table for name in map(slide_name, table[part].dropna())]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CohortError(
            f"the split names {len(unknown)} slides or cases that the table does not have: {few(unknown)}",
            where=path,
            fix="use the table these splits were made from, or remove the names",
        )


def _refuse_leaks(parts: dict[str, tuple[str, ...]], path: Path) -> None:
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        both = sorted(set(parts[a]) & set(parts[b]))
        if both:
            raise CohortError(
                f"{len(both)} patients are in both {a} and {b}: {few(both)}",
                where=path,
                fix="leave all slides of a patient in one part; a result on shared patients is not held out",
            )
