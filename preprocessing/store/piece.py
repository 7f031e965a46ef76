"""Pieces of slides as stores of their own: cores of a tissue microarray, or tissue of several patients on one glass.

`TMA~3` is the name of piece 3 of the slide `TMA`, and `TMA.zarr~3` the path of its store. A piece has the tiles of
its number in the array `piece`; frames, overview and mask are those of the whole slide.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.errors import StoreError
from preprocessing.store.store import PatchStore, open_store

_PIECE = re.compile(r"(.+)~(\d{1,8})")


def piece_name(slide_id: str, piece: int) -> str:
    """Return the name of a piece of a slide, or, given the name of a store's folder, the name of the piece's path."""
    return f"{slide_id}~{piece}"


def split_piece(name: str) -> tuple[str, int | None]:
    """Return the name of the slide and the number of the piece, which is None for the name of a slide.

    >>> split_piece("TMA~3"), split_piece("TMA")
    (('TMA', 3), ('TMA', None))
    """
    match = _PIECE.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def split_path(path: Path) -> tuple[Path, int | None]:
    """Return the path of a slide's store, and the number of the piece, which is None for the store of a slide."""
    name, piece = split_piece(path.name) if ".zarr~" in path.name else (path.name, None)
    return path.with_name(name), piece


def all_pieces(stores: Mapping[str, Path]) -> dict[str, Path]:
    """Return the stores of all pieces with tiles; a store that cannot be read, or has no pieces, stays whole."""
    found = {}
    for slide, path in stores.items():
        try:
            pieces = np.unique(open_store(path).piece)
        except StoreError:
            pieces = np.empty(0, int)
        numbered = [(piece_name(slide, n), piece_name(path.name, n)) for n in pieces[pieces >= 0].tolist()]
        found |= {name: path.with_name(file) for name, file in numbered} or {slide: path}
    return found


def with_pieces(stores: Mapping[str, Path], slides: Iterable[str]) -> dict[str, Path]:
    """Return the stores, each replaced by those of its pieces that are among the named slides.

    A slide that is itself named stays.

    >>> list(with_pieces({"TMA": Path("TMA.zarr"), "B": Path("B.zarr")}, ["TMA~0", "TMA~2"]))
    ['B', 'TMA~0', 'TMA~2']
    """
    slides, found, divided = set(slides), dict(stores), set()
    for name in sorted(slides - set(stores)):
        slide, piece = split_piece(name)
        if piece is not None and slide in stores:
            found[name] = stores[slide].with_name(piece_name(stores[slide].name, piece))
            divided.add(slide)
    return {name: path for name, path in found.items() if name in slides or name not in divided}


def open_piece(path: Path) -> "StorePiece":
    """Open the store of a piece, `slide.zarr~3`.

    Raises:
        StoreError: The slide's store cannot be read, or has no such piece.
    """
    whole, piece = split_path(path)
    if piece is None:
        raise StoreError("this is not the name of a store's piece", where=path, fix="write it as slide.zarr~3")
    return StorePiece(open_store(whole), piece)


class StorePiece(PatchStore):
    """The store of one piece of a slide: only its tiles, with the slide's frames and overview.

    Its `source.sha256` ends with the number of the piece, so that pieces of one glass are no copies of each other.

    Raises:
        StoreError: The store has no labelled pieces, or none of this number.
    """

    def __init__(self, whole: PatchStore, piece: int) -> None:
        super().__init__(whole.path, whole._metadata)
        self._whole, self._piece = whole, piece
        self._tiles = np.flatnonzero(whole.piece == piece)
        if not len(self._tiles):
            numbers = np.unique(whole.piece[whole.piece >= 0]).tolist()
            what = f"the slide has no piece {piece} with tiles; it has {len(numbers)} pieces, " + (
                f"{numbers[0]} to {numbers[-1]}" if numbers else "none with a number"
            )
            raise StoreError(what, where=whole.path, fix="correct the table; pieces.csv of `tile --pieces` lists them")
        self.slide_id = piece_name(whole.slide_id, piece)
        if whole.source.sha256:
            self.source = whole.source.model_copy(update={"sha256": piece_name(whole.source.sha256, piece)})

    def __len__(self) -> int:
        return len(self._tiles)

    def identity(self) -> str:
        """Return the identity of the whole slide's store, with the number of the piece."""
        return piece_name(super().identity(), self._piece)

    def read_tiles(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Decode tiles of the piece (k, T, T, 3), as `PatchStore.read_tiles` does."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"tile indices go from 0 to {len(self) - 1}")
        return self._whole.read_tiles(self._tiles[wanted])

    def _array(self, name: str) -> npt.NDArray[Any]:
        array = self._whole._array(name)
        return array if name.startswith("overview") else array[self._tiles]
