"""Published splits <-> folds of patients. The soundness of folds is checked in `longvit.cohort.checks`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from longvit.cohort.patients import Cohort
from longvit.cohort.tables import read_strings, slide_name
from longvit.config import PARTS, Part
from preprocessing.errors import CohortError, few
from preprocessing.jobs.files import write_whole

MAX_FOLDS = 1000
"""Largest number of splits that one run reads."""


@dataclass(frozen=True)
class Split:
    """Content of one `splits_<k>.csv`: slides or cases of each part, in the file's order, without file endings."""

    index: int
    path: Path
    parts: dict[Part, tuple[str, ...]]


@dataclass(frozen=True)
class Fold:
    """Patients of each part of one fold; `test` is empty if the published split has no such column."""

    index: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def held_out(self) -> Part:
        """Return the part that results are reported on: test, or val if the splits have only train and val."""
        return "test" if self.test else "val"

    @property
    def parts(self) -> dict[Part, tuple[str, ...]]:
        """Return the patients of train, val and test."""
        return {"train": self.train, "val": self.val, "test": self.test}


def read_splits(folder: Path, wanted: tuple[int, ...] | None = None) -> list[Split]:
    """Read `splits_<k>.csv` files with columns train, val and optionally test, in order of k.

    The columns contain slide ids or case ids, with or without file endings. In CLAM's `splits_<k>_bool.csv` they
    contain True and False, next to a first column of ids. A `_bool` file is read if its fold has no other file.

    Raises:
        CohortError: There are no splits, or more than `MAX_FOLDS`; or a wanted fold or a column is missing; or a number
            is used twice.
    """
    found: dict[tuple[int, bool], list[str]] = {}
    for path in folder.glob("splits_*.csv"):
        if match := re.fullmatch(r"splits_([0-9]{1,9})(_bool)?", path.stem):
            found.setdefault((int(match[1]), bool(match[2])), []).append(path.name)
    for names in found.values():
        if len(names) > 1:
            what = f"{' and '.join(sorted(names)[:2])} have the same number"
            raise CohortError(what, where=folder, fix="remove one of them")
    files = {k: folder / found[k, (k, False) not in found][0] for k, _ in found}
    if not files:
        raise CohortError("there is no splits_<k>.csv", where=folder, fix="check the path of the folder of splits")
    missing = sorted(set(wanted or ()) - set(files))
    if missing:
        raise CohortError(
            f"there is no splits_{missing[0]}.csv",
            where=folder,
            fix=f"folds present: {few(list(map(str, sorted(files))), 20)}",
        )
    chosen = sorted(files if wanted is None else set(wanted))
    if len(chosen) > MAX_FOLDS:
        what, fix = f"there are {len(chosen):,} splits, more than {MAX_FOLDS:,}", "choose some with --folds"
        raise CohortError(what, where=folder, fix=fix)
    return [_read_split(k, files[k]) for k in chosen]


def _read_split(index: int, path: Path) -> Split:
    table = read_strings(path)
    absent = [part for part in PARTS[:2] if part not in table]
    if absent:
        raise CohortError(f"the split has no column {absent[0]}", where=path, fix="add the columns train, val and test")
    present: list[Part] = [part for part in PARTS if part in table]
    if table[present].isin(["True", "False", "TRUE", "FALSE"]).all(axis=None) and len(table):
        ids = table.iloc[:, 0]
        columns: dict[Part, pd.Series] = {part: ids[table[part].str.lower() == "true"] for part in present}
    else:
        columns = {part: table[part].dropna() for part in present}
    return Split(index, path, {part: tuple(map(slide_name, names)) for part, names in columns.items()})


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
            fix = "use splits made for this table"
            raise CohortError(f"no patient of the table is in {part}", where=split.path, fix=fix)
    return Fold(split.index, **patients)


def write_folds(folder: Path, folds: Iterable[Fold], cohort: Cohort) -> None:
    """Write `splits_<k>.csv` of slide ids with columns train, val and test, the published form.

    Raises:
        CohortError: The folder contains other splits, which would be read together with these.
    """
    texts = {}
    for fold in folds:
        slides = {part: [s for case in cases for s in cohort.slides[case]] for part, cases in fold.parts.items()}
        table = pd.DataFrame({part: pd.Series(names, dtype=str) for part, names in slides.items()})
        texts[folder / f"splits_{fold.index}.csv"] = table.to_csv()
    others = [path for path in folder.glob("splits_*.csv") if path.read_bytes() != texts.get(path, "").encode()]
    if others:
        raise CohortError("the folder contains other splits", where=others[0], fix="choose another --out")
    for path, text in texts.items():
        write_whole(path, text)
