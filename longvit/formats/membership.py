"""Who was in which part of which fold: what a run writes down, so that its models are not tried on whom they know."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from longvit.cohort.splits import Fold
from longvit.cohort.tables import read_strings
from longvit.config import PARTS
from longvit.runs.tables import write_rows
from longvit.tokens.read import Scale
from preprocessing.errors import CheckpointError, CohortError, few
from preprocessing.store.store import open_store

MEMBERSHIP = "membership.csv"
_KEYS = ("slide_id", "patient_id", "sha256")
FOLD = re.compile(r"fold_\d{1,9}")
"""Column and folder of a fold."""
_TRAINING = ("train", "val")
"""Parts that a model has seen: the epoch may be chosen on val."""


def write_membership(
    out: Path, stores: Mapping[str, Path], patient_of: Mapping[str, str], folds: Sequence[Fold]
) -> Path:
    """Write `membership.csv`: `slide_id, patient_id, sha256, mpp, tile_px`, and the part in every fold, `fold_<k>`.

    A row per slide; a patient in no part of a fold has an empty one, a leak that was accepted both, joined by `;`.

    Args:
        out: Folder of the run.
        stores: Store of each slide.
        patient_of: Patient of each slide.
        folds: The folds that models were trained on.
    """
    rows = []
    for slide, path in stores.items():
        store, case = open_store(path), patient_of[slide]
        row = {"slide_id": slide, "patient_id": case, "sha256": store.source.sha256 or ""}
        row |= {"mpp": store.mpp, "tile_px": store.tile_st}
        for fold in folds:
            row[f"fold_{fold.index}"] = ";".join(part for part in PARTS if case in fold.parts[part])
        rows.append(row)
    write_rows(out / MEMBERSHIP, rows)
    return out / MEMBERSHIP


@dataclass(frozen=True)
class Membership:
    """What a run's models have seen, and at which scale."""

    table: pd.DataFrame
    """The rows of `membership.csv`, as strings."""
    path: Path

    def seen(
        self, slides: Iterable[str], patients: Iterable[str], hashes: Iterable[str | None]
    ) -> list[tuple[int, ...]]:
        """For each new slide the folds whose model was trained or selected on its patient, itself, or an equal file."""
        folds = {int(name.removeprefix("fold_")): name for name in self.table if name.startswith("fold_")}
        known = {k: self.table[self.table[name].map(_is_training)] for k, name in folds.items()}
        names = {k: [frozenset(rows[column]) for column in _KEYS] for k, rows in known.items()}
        return [
            tuple(k for k, sets in names.items() if any(one and one in of for one, of in zip(new, sets, strict=True)))
            for new in zip(slides, patients, hashes, strict=True)
        ]

    @property
    def scale(self) -> Scale:
        """Scale of the slides that the models were trained on."""
        return Scale(mpp=self.table["mpp"].iloc[0], tile_px=self.table["tile_px"].iloc[0])


def read_membership(run: Path) -> Membership:
    """Read which patients and slides a run's models have seen.

    Raises:
        CheckpointError: The folder has no `membership.csv`, or not one of ours.
    """
    path = run / MEMBERSHIP
    if not path.is_file():
        raise CheckpointError(
            f"the run has no {MEMBERSHIP}, so the patients of its models are unknown",
            where=path,
            fix="give --run the folder of a finished `longvit finetune`",
        )
    try:
        membership = Membership(read_strings(path, missing=frozenset()), path)
        problem = _problem(membership.table)
        _ = membership.scale if problem is None else None
    except CohortError as error:
        problem = error.what
    except ValueError as error:  # pydantic: not a number
        problem = f"the table cannot be read: {next(iter(str(error).splitlines()), '')}"
    if problem:
        raise CheckpointError(problem, where=path, fix="copy the file of the run again")
    return membership


def _problem(table: pd.DataFrame) -> str | None:
    missing = [name for name in (*_KEYS, "mpp", "tile_px") if name not in table]
    if missing:
        return f"the table has no column {', '.join(missing)}"
    folds = [name for name in table if name.startswith("fold_")]
    if not folds or not all(FOLD.fullmatch(name) for name in folds):
        return "the table's folds are not numbered"
    strange = {part for name in folds for parts in table[name] for part in parts.split(";")} - {*PARTS, ""}
    return f"the table has parts that no fold has: {few(sorted(strange))}" if strange else None


def _is_training(parts: str) -> bool:
    return bool(set(_TRAINING) & set(parts.split(";")))
