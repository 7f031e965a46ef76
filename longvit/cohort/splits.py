"""Published splits <-> folds of patients. The soundness of folds is checked in `longvit.cohort.checks`."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from longvit.cohort.near_names import nearest
from longvit.cohort.patients import Cohort
from longvit.cohort.split_files import Split, find_splits
from longvit.config import PARTS, Part
from preprocessing.errors import CohortError, few
from preprocessing.jobs.files import write_whole

MAX_FOLDS = 1000
"""Largest number of splits that one run reads."""


@dataclass(frozen=True)
class Fold:
    """Patients of each part of one fold.

    Attributes:
        index: Number of the fold.
        train: Patients of train.
        val: Patients of val.
        test: Patients of test; empty if the published split has no such column.
        path: File that the fold was read from, for errors; None if it was read from none.
    """

    index: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    path: Path | None = field(default=None, compare=False)

    @property
    def held_out(self) -> Part:
        """Return the part that results are reported on: test, or val if the splits have only train and val."""
        return "test" if self.test else "val"

    @property
    def parts(self) -> dict[Part, tuple[str, ...]]:
        """Return the patients of train, val and test."""
        return {"train": self.train, "val": self.val, "test": self.test}


def read_splits(source: Path, wanted: tuple[int, ...] | None = None) -> list[Split]:
    """Read the splits of a folder or file, in any form of `find_splits`, in order of their number.

    Raises:
        CohortError: There are no splits, or more than `MAX_FOLDS`; or a wanted fold or a column is missing; or a number
            is used twice.
    """
    readers = find_splits(source)
    missing = sorted(set(wanted or ()) - set(readers))
    if missing:
        name = f"splits_{missing[0]}.csv" if source.is_dir() else f"fold {missing[0]}"
        present = few(list(map(str, sorted(readers))), 20)
        raise CohortError(f"there is no {name}", where=source, fix=f"folds present: {present}")
    chosen = sorted(readers if wanted is None else set(wanted))
    if len(chosen) > MAX_FOLDS:
        what, fix = f"there are {len(chosen):,} splits, more than {MAX_FOLDS:,}", "choose some with --folds"
        raise CohortError(what, where=source, fix=fix)
    return [readers[k]() for k in chosen]


def join_numbers(split: Split, cohort: Cohort) -> Split:
    """Return a split in which whole numbers are written as the tables write them: 100.0 as 100, or 100 as 100.0."""
    known = {*cohort.patient_of, *cohort.slides, *cohort.left_out}

    def joined(name: str) -> str:
        other = name.removesuffix(".0") if name.endswith(".0") else f"{name}.0"
        return other if name not in known and other in known and name.removesuffix(".0").isdecimal() else name

    return replace(split, parts={part: tuple(map(joined, names)) for part, names in split.parts.items()})


def to_fold(split: Split, cohort: Cohort) -> Fold:
    """Return the patients of a split, named by themselves or by a slide; names that the cohort lacks are skipped.

    Raises:
        CohortError: No patient of the cohort is in train, or no patient is in val.
    """
    patient_of = cohort.patient_of | {case: case for case in cohort.slides}
    patients = {
        part: tuple(dict.fromkeys(patient_of[name] for name in split.parts.get(part, ()) if name in patient_of))
        for part in PARTS
    }
    for part in PARTS[:2]:
        if not patients[part]:
            near = nearest(split.parts.get(part, ()), patient_of)
            raise CohortError(
                f"no patient of the table is in {part}{f': {near}' if near else ''}",
                where=split.path,
                fix="spell the names in the split as in the table" if near else "use splits made for this table",
            )
    return Fold(split.index, **patients, path=split.path)


def write_folds(folder: Path, folds: Iterable[Fold], cohort: Cohort) -> None:
    """Write `splits_<k>.csv` of slide ids with columns train, val and test, the published form.

    Raises:
        CohortError: The folder contains other splits, which would be read together with these.
    """
    texts = {}
    for fold in folds:
        slides = {part: [s for case in cases for s in cohort.slides[case]] for part, cases in fold.parts.items()}
        table = pd.DataFrame({part: pd.Series(names, dtype=str) for part, names in slides.items()})
        texts[folder / f"splits_{fold.index}.csv"] = table.to_csv(lineterminator="\n")
    others = [path for path in folder.glob("splits_*.csv") if path.read_bytes() != texts.get(path, "").encode()]
    if others:
        raise CohortError("the folder contains other splits", where=others[0], fix="choose another --out")
    for path, text in texts.items():
        write_whole(path, text)


def count_parts(cohort: Cohort, folds: Iterable[Fold]) -> list[dict]:
    """Return a row for each part of each fold: patients, slides, and patients of each class or with an event."""
    return [_count(cohort, fold, part) for fold in folds for part in PARTS if fold.parts[part]]


def _count(cohort: Cohort, fold: Fold, part: Part) -> dict:
    cases = list(fold.parts[part])
    strata = cohort.strata.loc[cases]
    row = {"fold": fold.index, "part": part, "patients": len(cases)}
    row["slides"] = sum(len(cohort.slides[case]) for case in cases)
    if not cohort.classes:
        return row | {"events": int(strata.sum())}
    return row | {name: int((strata == name).sum()) for name in cohort.classes}
