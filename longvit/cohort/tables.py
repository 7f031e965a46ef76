"""Tables of published cohorts, in any form -> rows of strings, with patients and slides under two fixed names."""

import re
import sys
from collections.abc import Collection, Iterable, Set
from pathlib import Path

import numpy as np
import pandas as pd

from longvit.cohort.columns import PATIENT, SAMPLE, SLIDE, find_column, plain
from longvit.cohort.known_tables import lacks_patients
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


def read_table(path: Path, needed: Set[str] = frozenset({"case_id", "slide_id"})) -> pd.DataFrame:
    """Read a table of slides or patients under any of the names in `columns`; arguments and errors as `name_rows`."""
    table = read_strings(path, wanted=(*PATIENT, *SLIDE))
    return name_rows(table, path, needed, slides_are_patients=lacks_patients(list(table.columns)))


def name_rows(
    table: pd.DataFrame,
    path: Path,
    needed: Set[str],
    patient: str | None = None,
    slide: str | None = None,
    *,
    slides_are_patients: bool = False,
) -> pd.DataFrame:
    """Return a table with the columns `case_id` and `slide_id` as far as they are needed, checked and without gaps.

    The patient of a slide without a column of patients is its TCGA barcode, if all slides have one. With a column
    `piece`, a row whose number is filled in is of this piece of the slide (`tile --pieces`), and its slide_id becomes
    `TMA~3`.

    Args:
        table: Strings, by their line.
        path: File of the table, for errors.
        needed: `case_id`, `slide_id` or both.
        patient: Column with the patient; found by its name if None.
        slide: Column with the slide; found by its name if None.
        slides_are_patients: Whether every slide is a patient of its own.

    Raises:
        CohortError: A column or a value of it is missing; a name is unusable; or pieces are not numbers, or are next
            to a row of their whole slide.
    """
    columns = list(table.columns)
    patient = patient or find_column(columns, PATIENT) or "case_id"
    slide = slide or find_column(columns, SLIDE) or "slide_id"
    named: dict[str, pd.Series] = {}
    if "slide_id" in needed and slide in columns:
        refuse_gaps(table[slide], path)
        named["slide_id"] = _with_pieces(table, table[slide].map(slide_name), path)
    if "slide_id" in named and slides_are_patients:
        named["case_id"] = named["slide_id"]
    elif patient in columns:
        refuse_gaps(table[patient], path)
        named["case_id"] = table[patient].map(_patient_of_sample) if plain(patient) in SAMPLE else table[patient]
    elif "slide_id" in named and len(owners := barcodes(named["slide_id"])) == named["slide_id"].nunique():
        named["case_id"] = named["slide_id"].map(owners)
    absent = [column for name, column in (("case_id", patient), ("slide_id", slide)) if name in needed - named.keys()]
    if absent:
        raise CohortError(
            f"the table has no column {' nor '.join(absent)}",
            where=f"{path}, columns: {few(columns, 12)}",
            fix="rename the column; split, audit and finetune also take --task.patient-column and --task.slide-column, "
            "a --slide-table, --stores for slides of TCGA, or --task.patient slide if the table has no patients",
        )
    table = table.assign(**{name: named[name] for name in needed})
    for name in needed:
        refuse_names(table[name], path)
    return table


def _patient_of_sample(name: str) -> str:
    """Return the patient's part of a sample's TCGA barcode; other names as they are."""
    match = _TCGA.match(name)
    return match[0] if match else name


def refuse_gaps(cells: pd.Series, path: Path) -> None:
    """Refuse a column in which values are missing.

    Raises:
        CohortError: The number of missing values, and the line of the first.
    """
    empty = cells.index[cells.isna()]
    if len(empty):
        what = f"{len(empty)} of {len(cells)} rows have no {cells.name}"
        raise CohortError(what, where=f"{path}, line {empty[0]}", fix="fill in the value, or remove the row")


def _with_pieces(table: pd.DataFrame, slides: pd.Series, path: Path) -> pd.Series:
    """Return the names of slides, and of their pieces if the table has a column of these.

    Raises:
        CohortError: A piece is not a number, or is in the table with its whole slide.
    """
    if PIECE not in table:
        return slides
    pieces = table[PIECE].dropna()
    for line, piece in pieces.items():
        if not re.fullmatch(r"\d{1,8}(\.0+)?", piece):
            fix = f"give the numbers of pieces.csv, or rename the column if it has no pieces of `tile --{PIECE}s`"
            raise CohortError(f"{short(piece)!r} is not the number of a piece", where=f"{path}, line {line}", fix=fix)
    names = slides.copy()
    names[pieces.index] = [
        piece_name(slide, int(float(piece))) for slide, piece in zip(names[pieces.index], pieces, strict=True)
    ]
    both = sorted(set(slides[pieces.index]) & set(names.drop(pieces.index)))
    if both:
        fix = "fill in the number of the piece in each of their rows"
        raise CohortError(f"slides are in the table as a whole and in pieces: {few(both)}", where=path, fix=fix)
    return names
