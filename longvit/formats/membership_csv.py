"""Schema of membership.csv: the part of every fold that a run's slides were in, so that `predict` recognises slides.

| Columns | Values |
|---|---|
| `slide_id`, `patient_id` | slide and its patient |
| `sha256` | hash of the slide's file |
| `mpp`, `tile_px` | scale of the slide's tiles: micrometres per pixel, and side in pixels |
| `fold_<k>` | part of fold k: train, val or test; empty if not in fold k; joined by `;` for an accepted leak |
"""

import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from longvit.config import PARTS, Part
from longvit.formats.bounded import read_bytes
from longvit.formats.csv_rows import JOINED, Bounds, bounded_rows, string_table, write_rows
from preprocessing.errors import CheckpointError, CohortError
from preprocessing.store.piece import split_piece
from preprocessing.store.store import open_store

MEMBERSHIP = "membership.csv"
FOLD = re.compile(r"fold_(\d{1,9})")
"""Name of the column and of the folder of a fold."""
_COPY = "copy the file of the run again"
BOUNDS = Bounds(2**27, 2_000_000, "the table has", _COPY, _COPY)
_COLUMNS = ("slide_id", "patient_id", "sha256", "mpp", "tile_px")
_TRAINING = {"train", "val"}
"""Parts that a model was trained or selected on: the epoch may be chosen on val."""


class Member(BaseModel):
    """Slide of a run, with its part in each fold."""

    model_config = ConfigDict(frozen=True)
    slide_id: str
    patient_id: str
    sha256: str
    """Hash of the slide's file; empty if unknown."""
    mpp: float = Field(gt=0, allow_inf_nan=False)
    """Resolution of the slide's tiles, micrometres per pixel."""
    tile_px: PositiveInt
    """Side of the slide's tiles, pixels."""
    parts: dict[int, tuple[Part, ...]]
    """Parts that the slide is in, by the number of the fold."""


@dataclass(frozen=True)
class Membership:
    """Slides of a run, and the parts of each fold that the slides were in."""

    members: tuple[Member, ...]
    """Slides of the run, at least one."""
    path: Path
    """Path of the file."""

    def seen(
        self, slides: Iterable[str], patients: Iterable[str], hashes: Iterable[str | None]
    ) -> list[tuple[int, ...]]:
        """Return the folds whose model was trained or selected on each new slide, its patient or its file.

        A piece and its whole slide match each other; two pieces of a slide do not.

        Args:
            slides: Id of each new slide.
            patients: Patient of each new slide.
            hashes: SHA-256 of the file of each new slide; None or empty if unknown, which matches no slide.
        """
        known = {}
        for fold in self.members[0].parts:
            trained = [one for one in self.members if _TRAINING & {*one.parts[fold]}]
            columns = ("slide_id", "patient_id", "sha256")
            known[fold] = [_Names.of({getattr(one, column) for one in trained} - {""}) for column in columns]
        return [
            tuple(fold for fold, sets in known.items() if any(one in of for one, of in zip(new, sets, strict=True)))
            for new in zip(slides, patients, hashes, strict=True)
        ]


@dataclass(frozen=True)
class _Names:
    """Names of slides, of pieces or of neither; contains a name if it is among them, or shares tissue with one."""

    names: frozenset[str]
    slides: frozenset[str]
    """Slides of the pieces among the names."""

    @classmethod
    def of(cls, names: Collection[str]) -> "_Names":
        divided = (split_piece(name) for name in names)
        return cls(frozenset(names), frozenset(slide for slide, piece in divided if piece is not None))

    def __contains__(self, name: str | None) -> bool:
        return bool(name) and (name in self.names or name in self.slides or split_piece(name)[0] in self.names)


def write_membership(
    folder: Path,
    stores: Mapping[str, Path],
    patient_of: Mapping[str, str],
    folds: Mapping[int, Mapping[Part, Collection[str]]],
) -> None:
    """Write membership.csv through a temporary name, one row per slide.

    Args:
        folder: Folder of the run.
        stores: Store of each slide.
        patient_of: Patient of each slide.
        folds: Patients of each part, by the number of each fold that models are trained on.
    """
    rows = []
    for slide, path in stores.items():
        store, patient = open_store(path), patient_of[slide]
        values = (slide, patient, store.source.sha256 or "", store.mpp, store.tile_st)
        parts = {f"fold_{k}": JOINED.join(p for p in PARTS if patient in fold[p]) for k, fold in folds.items()}
        rows.append(dict(zip(_COLUMNS, values, strict=True)) | parts)
    write_rows(folder / MEMBERSHIP, rows)


def read_membership(folder: Path) -> Membership:
    """Read the patients and slides that the models of a run were trained or selected on.

    Raises:
        CheckpointError: The folder has no membership.csv, or the file is not a run's membership.csv.
    """
    path = folder / MEMBERSHIP
    if not path.is_file():
        raise CheckpointError(
            f"the run has no {MEMBERSHIP}, so the training patients of its models are unknown",
            where=path,
            fix="give the folder of a finished `longvit finetune`",
        )
    try:
        rows = bounded_rows(read_bytes(path, BOUNDS.max_bytes), path, BOUNDS)
        header = next(rows)[1]
        folds = _folds(header, path)
        table = string_table(rows, header, {*_COLUMNS, *folds}, path)
        members = tuple(_member(row, folds) for row in table.to_dict("records"))
    except CohortError as error:
        raise CheckpointError(error.what, where=path, fix=_COPY) from None
    except ValidationError as error:
        name, what = error.errors()[0]["loc"][0], error.errors()[0]["msg"]
        raise CheckpointError(f"the table cannot be read: {name}: {what}", where=path, fix=_COPY) from None
    return Membership(members, path)


def _folds(header: list[str], path: Path) -> dict[str, int]:
    """Return the number of each fold by its column.

    Raises:
        CohortError: A column is missing.
    """
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise CohortError(f"the table has no column {', '.join(missing)}", where=path, fix=_COPY)
    numbers = {name: FOLD.fullmatch(name) for name in header if name.startswith("fold_")}
    if not numbers or not all(numbers.values()):
        raise CohortError("the table's folds are not numbered", where=path, fix=_COPY)
    return {name: int(found[1]) for name, found in numbers.items() if found}


def _member(row: Mapping[Hashable, str], folds: Mapping[str, int]) -> Member:
    parts = {number: tuple(filter(None, row[column].split(JOINED))) for column, number in folds.items()}
    return Member.model_validate({**row, "parts": parts})
