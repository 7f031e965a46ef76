"""Table `pieces.csv` of a run with `--pieces`: every piece of tissue of every slide, to give each piece its patient."""

import csv
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import numpy as np

from preprocessing.jobs.files import write_whole
from preprocessing.store.store import PatchStore

PIECES = "pieces.csv"
COLUMNS = ("slide_id", "piece", "n_tiles", "x_l0", "y_l0", "width_l0", "height_l0")
"""Columns of the table. The box is that of the piece's tiles, in level-0 pixels of the whole slide."""


def save_pieces(folder: Path, stores: Iterable[PatchStore]) -> None:
    """Write `pieces.csv` into a folder, a row for each piece with tiles, by the order of stores and pieces."""
    table = StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    for store in stores:
        for piece in np.unique(store.piece[store.piece >= 0]).tolist():
            xy_l0 = store.xy_l0[store.piece == piece]
            corner = xy_l0.min(axis=0)
            size = np.rint(xy_l0.max(axis=0) + store.side_l0 - corner).astype(int)
            writer.writerow((store.slide_id, piece, len(xy_l0), *corner.tolist(), *size.tolist()))
    write_whole(folder / PIECES, table.getvalue())
