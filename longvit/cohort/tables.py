"""Tables of published cohorts (CSV, compressed or not, or Excel) -> rows of strings under two fixed names."""

import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from longvit.config import MISSING_WORDS
from longvit.config.required import TABLE, RequiredInput
from preprocessing.errors import MAX_NAME, CohortError, few, printable, short
from preprocessing.slides.names import ENDINGS, without_ending
from preprocessing.store.piece import piece_name
from preprocessing.tables.rows import read_cells

_ENDINGS = (*ENDINGS, ".zarr", ".h5", ".pt")
"""Endings of slides, and of files made of a slide."""
PIECE = "piece"
"""Column with the number of the piece of tissue that a row is of; empty for the whole slide."""
_STAMP = {"PATIENT": "case_id", "FILENAME": "slide_id"}
FORMULA = ("=", "+", "-", "@")
"""First characters that make a spreadsheet read a cell as a formula; tab and carriage return do not print."""
_TCGA = re.compile(r"TCGA-\w{2}-\w{4}")


def slide_name(name: str) -> str:
    """Return a slide id without the file ending that some tables append."""
    return without_ending(name, _ENDINGS)


def barcodes(slide_ids: Iterable[str]) -> dict[str, str]:
    """Return the patient of each slide id that is a TCGA barcode: its first twelve characters."""
    return {slide: match[0] for slide in slide_ids if (match := _TCGA.match(slide))}


def read_strings(
    path: Path,
    mark: RequiredInput = TABLE,
    missing: Collection[str] = MISSING_WORDS,
    wanted: Collection[str] = (),
) -> pd.DataFrame:
    """Read a table in any form of `preprocessing.tables`, with every value as it is written.

    Args:
        path: The table.
        mark: Noun of the table in errors.
        missing: Words that become NaN, as the empty string does; in any case, as whole cells.
        wanted: Names of columns, by which the sheet of an Excel file is chosen.

    Returns:
        The rows, by their line number in the file; `attrs["header"]` is the line of the header.

    Raises:
        CohortError: The file is missing, damaged, not a table or larger than the bounds; or as in `read_cells`.
    """
    if what := mark.problem(path):
        raise CohortError(what, where=path.absolute(), fix=mark.fix)
    cells = read_cells(path, mark.noun, wanted)
    for note in cells.notes:
        print(printable(f"note: {path} {note}"), file=sys.stderr)
    empty = {"", *(word.casefold() for word in missing)}
    rows = [[np.nan if cell.casefold() in empty else cell for cell in row] for row in cells.rows]
    table = pd.DataFrame(rows, columns=cells.columns, index=cells.lines, dtype=object)
    table.attrs["header"] = cells.header
    return table


def refuse_names(names: pd.Series, where: object) -> None:
    """Refuse names of patients, slides or sites that spreadsheets, terminals or files would misread.

    Args:
        names: The names; the index is their line.
        where: The table.

    Raises:
        CohortError: A name begins with = + - or @, is longer than 200 characters, or has characters that do not print.
    """
    for name, line in zip(names.to_numpy(), names.index, strict=True):
        if what := bad_name(name):
            at = f"{where}, line {line}, column {names.name}"
            fix = "rename it in the table, and in splits and stores"
            raise CohortError(f"{short(name)!r} {what}", where=at, fix=fix)


def bad_name(name: str) -> str | None:
    """Return the reason why a name cannot be used in results, or None.

    >>> bad_name("=1+1")
    'begins with =, which spreadsheets take for a formula'
    """
    if name[:1] in FORMULA:
        return f"begins with {name[0]}, which spreadsheets take for a formula"
    if not name.isprintable():
        return "has characters that do not print"
    return "is longer than 200 characters" if len(name) > MAX_NAME else None


def read_table(path: Path, columns: list[str], missing: Collection[str] = MISSING_WORDS) -> pd.DataFrame:
    """Read a table as strings, and check that `columns` exist and are filled in.

    STAMP's column PATIENT becomes case_id, its FILENAME becomes slide_id. With a column `piece`, a row whose number is
    filled in is of this piece of the slide (`tile --pieces`), and its slide_id becomes `TMA~3`.

    Raises:
        CohortError: The file, a column or a value of these columns is missing; or pieces are not numbers, or are next
            to a row of their whole slide.
    """
    table = read_strings(path, missing=missing, wanted=(*columns, *_STAMP))
    table = table.rename(columns={stamp: ours for stamp, ours in _STAMP.items() if ours not in table})
    missing = [name for name in columns if name not in table]
    if missing:
        raise CohortError(
            f"the table has no column {' nor '.join(missing)}",
            where=f"{path}, columns: {few(list(table.columns), 12)}",
            fix="rename the column, set its name in the config (task.label_column, ...), or add the slide_table",
        )
    for name in columns:
        empty = np.flatnonzero(table[name].isna())
        if len(empty):
            raise CohortError(
                f"{len(empty)} of {len(table)} rows have no {name}",
                where=f"{path}, line {table.index[empty[0]]}",
                fix="fill in the value, or remove the row",
            )
    if "slide_id" in columns:
        table["slide_id"] = table["slide_id"].map(slide_name)
        if PIECE in table:
            table["slide_id"] = _with_pieces(table, path)
    for name in {"case_id", "slide_id"}.intersection(columns):
        refuse_names(table[name], path)
    return table


def _with_pieces(table: pd.DataFrame, path: Path) -> pd.Series:
    """Return the names of slides and of their pieces.

    Raises:
        CohortError: A piece is not a number, or is in the table with its whole slide.
    """
    pieces = table[PIECE].dropna()
    for line, piece in pieces.items():
        if not re.fullmatch(r"\d{1,8}(\.0+)?", piece):
            fix = f"give the numbers of pieces.csv, or rename the column if it has no pieces of `tile --{PIECE}s`"
            raise CohortError(f"{short(piece)!r} is not the number of a piece", where=f"{path}, line {line}", fix=fix)
    names = table["slide_id"].copy()
    names[pieces.index] = [
        piece_name(slide, int(float(piece))) for slide, piece in zip(names[pieces.index], pieces, strict=True)
    ]
    both = sorted(set(table["slide_id"][pieces.index]) & set(names.drop(pieces.index)))
    if both:
        fix = "fill in the number of the piece in each of their rows"
        raise CohortError(f"slides are in the table as a whole and in pieces: {few(both)}", where=path, fix=fix)
    return names
