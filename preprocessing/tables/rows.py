"""Files of tables (text, Excel, Parquet, packed or not) -> strings with their line numbers, within bounds."""

import bz2
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast
from xml.parsers.expat import ExpatError

from preprocessing.errors import CohortError, few
from preprocessing.tables.excel import WORKBOOK, excel_rows
from preprocessing.tables.parquet import parquet_rows
from preprocessing.tables.text import DELIMITERS, FIX, Fitting, Row, Text, open_text, with_points

MAX_COLUMNS, MAX_CELLS = 2**16, 2**24
"""Bounds of one table."""
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": ("is compressed with Zstandard, which is not supported", "unpack it: unzstd FILE"),
    b"\xd0\xcf\x11\xe0": ("is an old or password-protected Excel file", "save it as .xlsx without password, or as CSV"),
}
_DAMAGED = (OSError, EOFError, MemoryError, zlib.error, lzma.LZMAError, ExpatError)
_BAD_ZIP = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, struct.error)
_CHUNK = 2**20


@dataclass(frozen=True)
class Cells:
    """Table of strings; only the empty string is a missing value.

    Attributes:
        columns: Names of the columns.
        header: Line of the header in the file.
        lines: Line of each row in the file; of Excel and Parquet files the number of the row.
        rows: Cells of each row, without white space at their ends, one for each column.
        notes: Predicates about the file to show to the user, such as a guessed encoding.
    """

    columns: list[str]
    header: int
    lines: list[int]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def read_cells(path: Path, noun: str = "table", wanted: Collection[str] = ()) -> Cells:
    """Read a table; its form is recognised by its content.

    Cells are cut by comma, semicolon or tab (a first line `sep=;` is followed); the text is UTF-8, UTF-16 or
    Windows-1252, after lines of comments (`#`). Decimal commas in columns of numbers become points unless cells are cut
    by commas. Rows without any value are left out.

    Args:
        path: CSV, TSV (each also as gz, bz2, xz or alone in a zip archive), Excel (.xlsx) or Parquet.
        noun: Noun of the table in errors.
        wanted: Names of columns, in any case. Of the sheets of an Excel file, the one with most of them is read.

    Raises:
        CohortError: The file is missing, damaged, not a table or larger than the bounds; two columns have one name, two
            sheets fit, or a row has more cells than the header.
    """
    names = {name.casefold() for name in wanted}
    fitting = lambda cells: len(names & {cell.strip().casefold() for cell in cells})
    if not path.is_file():
        what = f"the {noun} is not a file" if path.exists() else f"the {noun} does not exist"
        raise CohortError(what, where=path.absolute(), fix="check the path")
    try:
        with path.open("rb") as file:
            return _gathered(_opened(file, path, fitting), path, noun)
    except PermissionError as error:
        fix = "check its permissions, or close the program that has it open"
        raise CohortError(f"the {noun} cannot be read: {error.strerror}", where=path, fix=fix) from None
    except _DAMAGED as error:
        what = f"the {noun} cannot be read; it is damaged or truncated: {error or type(error).__name__}"
        raise CohortError(what, where=path, fix="copy it again, or save it as CSV") from None


def _gathered(text: Text, path: Path, noun: str) -> Cells:
    """Return all rows, padded to the width of the header."""
    columns, header, lines, rows = [], 0, [], []
    for line, cells in text.rows:
        stripped = [cell.strip() for cell in cells]
        if not any(stripped):
            continue
        if not header:
            columns, header = stripped, line
            _refuse_header(columns, f"{path}, line {line}", noun)
            continue
        if len(cells) > len(columns):
            what = f"a row of the {noun} has {len(cells)} cells, more than the {len(columns)} of the header"
            fix = "quote cells that contain a delimiter, remove delimiters at the end, or name the extra columns"
            raise CohortError(what, where=f"{path}, line {line}", fix=fix)
        if len(columns) * (len(rows) + 1) > MAX_CELLS:
            raise _too_large(path, noun)
        lines.append(line)
        rows.append(stripped + [""] * (len(columns) - len(cells)))
    if not header:
        raise CohortError(f"the {noun} is empty", where=path, fix=FIX)
    if not rows:
        raise CohortError(f"the {noun} has no rows", where=path, fix="give a table with a header and rows")
    if text.delimiter in DELIMITERS[1:]:
        rows = [list(row) for row in zip(*map(with_points, zip(*rows, strict=True)), strict=True)]
    return Cells(columns, header, lines, rows, text.notes)


def _refuse_header(columns: list[str], where: str, noun: str) -> None:
    if len(columns) > MAX_COLUMNS:
        raise _too_large(where, noun)
    repeated = [name for name, times in Counter(columns).items() if times > 1 and name]
    if repeated:
        what = f"two columns have the same name: {few(repeated)}"
        raise CohortError(what, where=where, fix="remove or rename one of each")


def _opened(file: io.BufferedReader, path: Path, fitting: Fitting) -> Text:
    head = file.read(8)
    file.seek(0)
    for magic, (what, fix) in _FOREIGN.items():
        if head.startswith(magic):
            raise CohortError(f"the table {what}", where=path, fix=fix)
    if head.startswith(b"PAR1"):
        return Text(parquet_rows(file, path, MAX_CELLS), "", ())
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zipped(file, path, fitting)
    unpack = next((unpack for magic, unpack in _COMPRESSED.items() if head.startswith(magic)), None)
    if unpack is None:
        return open_text(_chunks(file), path, fitting)
    with unpack(file) as stream:
        return open_text(_chunks(stream), path, fitting)


def _zipped(file: io.BufferedReader, path: Path, fitting: Fitting) -> Text:
    try:
        archive = zipfile.ZipFile(file)
        if WORKBOOK in archive.namelist():
            return Text(_excel(archive, path, fitting), "", ())
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            what = f"the zip archive contains {len(names)} files, not one table"
            raise CohortError(what, where=path, fix="zip the CSV alone, or give the CSV itself")
        with archive.open(names[0]) as stream:
            return open_text(_chunks(stream), path, fitting)
    except _BAD_ZIP as error:
        raise _bad_zip(error, path) from None


def _excel(archive: zipfile.ZipFile, path: Path, fitting: Fitting) -> Iterator[Row]:
    try:
        yield from excel_rows(archive, path, fitting)
    except _BAD_ZIP as error:
        raise _bad_zip(error, path) from None


def _chunks(stream: IO[bytes] | io.BufferedIOBase) -> Iterator[bytes]:
    return iter(partial(cast(IO[bytes], stream).read, _CHUNK), b"")


def _bad_zip(error: Exception, path: Path) -> CohortError:
    fix = "unpack it and give the CSV itself; archives with a password are not supported"
    return CohortError(f"the zip archive cannot be read: {error}", where=path, fix=fix)


def _too_large(where: object, noun: str) -> CohortError:
    what = f"the {noun} is larger than {MAX_COLUMNS:,} columns or {MAX_CELLS:,} cells"
    return CohortError(what, where=where, fix="keep the columns and rows that are needed")
