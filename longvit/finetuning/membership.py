"""Who was in which part of which fold: what a run writes down, so that its models are not tried on whom they know."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from longvit.cohort_config import PARTS
from longvit.finetuning.study import Study
from longvit.tokens.read import MPP_TOLERANCE
from longvit.training import write_rows
from preprocessing.errors import CheckpointError, StoreError
from preprocessing.store import PatchStore, open_store

MEMBERSHIP = "membership.csv"
_TRAINING = ("train", "val")
"""Parts that a model has seen: the epoch may be chosen on val."""


def write_membership(study: Study) -> Path:
    """Write `membership.csv`: `slide_id, patient_id, sha256, mpp, tile_px`, and the part in every fold, `fold_<k>`.

    A row per slide; a patient in no part of a fold has an empty one, a leak that was accepted both, joined by `;`.
    """
    rows = []
    for slide, path in study.stores.items():
        store, case = open_store(path), study.cohort.patient_of[slide]
        row = {"slide_id": slide, "patient_id": case, "sha256": store.attributes["source"]["sha256"]}
        row |= {"mpp": store.mpp, "tile_px": store.tile_st}
        for fold in study.folds:
            row[f"fold_{fold.index}"] = ";".join(part for part in PARTS if case in fold.parts[part])
        rows.append(row)
    write_rows(study.config.out / MEMBERSHIP, rows)
    return study.config.out / MEMBERSHIP


@dataclass(frozen=True)
class Membership:
    """What a run's models have seen, and at which scale."""

    table: pd.DataFrame
    """The rows of `membership.csv`, as strings."""
    path: Path

    def seen(self, slides: Iterable[str], patients: Iterable[str], hashes: Iterable[str]) -> list[tuple[int, ...]]:
        """For each new slide the folds whose model was trained or selected on its patient, itself, or an equal file."""
        folds = {int(name.removeprefix("fold_")): name for name in self.table if name.startswith("fold_")}
        known = {k: self.table[self.table[name].map(_is_training)] for k, name in folds.items()}
        columns = ("slide_id", "patient_id", "sha256")
        names = {k: [frozenset(rows[column]) for column in columns] for k, rows in known.items()}
        return [
            tuple(k for k, sets in names.items() if any(one in of for one, of in zip(new, sets, strict=True)))
            for new in zip(slides, patients, hashes, strict=True)
        ]

    def require_scale(self, stores: Collection[PatchStore]) -> None:
        """Refuse stores of another scale than the models were trained at.

        Raises:
            StoreError: A store has tiles of another side, or a resolution that differs by more than `MPP_TOLERANCE`.
        """
        mpp, tile_px = float(self.table["mpp"].iloc[0]), int(self.table["tile_px"].iloc[0])
        for store in stores:
            if store.tile_st != tile_px or abs(store.mpp / mpp - 1) > MPP_TOLERANCE:
                raise StoreError(
                    f"tiles of {store.tile_st} pixels at {store.mpp:.4g} um per pixel, but the models were trained on "
                    f"{tile_px} at {mpp:.4g}",
                    where=store.path,
                    fix=f"tile the slides with --mpp {mpp:.4g} --tile-px {tile_px}",
                )


def read_membership(run: Path) -> Membership:
    """Who a run's models know.

    Raises:
        CheckpointError: The folder has no `membership.csv`, or not one of ours.
    """
    path = run / MEMBERSHIP
    if not path.is_file():
        fix = "give --run the folder of a finished `longvit finetune`"
        raise CheckpointError(f"the run has no {MEMBERSHIP}, so nobody knows whom its models know", where=path, fix=fix)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in ("slide_id", "patient_id", "sha256", "mpp", "tile_px") if name not in table]
    if missing or table.empty:
        what = f"the table has no column {', '.join(missing)}" if missing else "the table has no rows"
        raise CheckpointError(what, where=path, fix="copy the file of the run again")
    return Membership(table, path)


def _is_training(parts: str) -> bool:
    return bool(set(_TRAINING) & set(parts.split(";")))
