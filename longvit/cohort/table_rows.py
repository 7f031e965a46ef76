"""Rows of a table file (CSV, compressed or not, or Excel) -> line numbers and strings, within bounds."""

import bz2
import csv
import gzip
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO
from xml.parsers.expat import ExpatError

from longvit.cohort.excel import WORKBOOK, excel_rows
from longvit.config.required import TABLE, RequiredInput
from preprocessing.errors import CohortError

MAX_CHARACTERS, MAX_LINE, MAX_LINES, MAX_COLUMNS, MAX_CELLS = 2**27, 2**24, 2_000_000, 2**16, 2**24
"""Bounds of one table, unpacked: characters, characters of a line, lines, columns, cells. A cell has at most 131,072
characters (module csv)."""
Row = tuple[int, list[str]]
_SMALLER = "keep the columns and rows that are needed"
_CSV = "save it as CSV (UTF-8)"
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": ("is compressed with Zstandard, which is not supported", "unpack it: unzstd FILE"),
    b"\xd0\xcf\x11\xe0": ("is an old or password-protected Excel file", "save it as .xlsx without password, or as CSV"),
}
_DAMAGED = (OSError, EOFError, MemoryError, zlib.error, lzma.LZMAError, ExpatError)
_BAD_ZIP = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, struct.error)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def table_rows(path: Path, mark: RequiredInput = TABLE) -> Generator[Row, None, None]:
    """Yield the line number and the cells of every row that is not empty; the first row is the header.

    Raises:
        CohortError: The file is missing, damaged, not a table or larger than the bounds; or a row is longer than the
            header.
    """
    what = mark.problem(path)
    if what:
        raise CohortError(what, where=path.absolute(), fix=mark.fix)
    width = count = 0
    try:
        with path.open("rb") as file:
            for line, cells in _rows(file, path):
                if not any(cells):
                    continue
                count += 1
                width = width or len(cells)
                if len(cells) > width:
                    what = f"a row of the table has {len(cells)} cells, more than the {width} of the header"
                    fix = "quote cells that contain a comma, or add names for the extra columns"
                    raise CohortError(what, where=f"{path}, line {line}", fix=fix)
                if width > MAX_COLUMNS or width * count > MAX_CELLS:
                    raise _too_large(path, f"{MAX_COLUMNS:,} columns or {MAX_CELLS:,} cells")
                yield line, cells
    except _DAMAGED as error:
        what = f"the table cannot be read; it is damaged or truncated: {error or type(error).__name__}"
        raise CohortError(what, where=path, fix="copy it again, or save it as CSV") from None
    if not count:
        raise CohortError("the table is empty", where=path, fix=_CSV)


def _rows(file: io.BufferedIOBase, path: Path) -> Iterator[Row]:
    head = file.read(8)
    file.seek(0)
    for magic, (what, fix) in _FOREIGN.items():
        if head.startswith(magic):
            raise CohortError(f"the table {what}", where=path, fix=fix)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _zipped_rows(file, path)
        return
    unpack = next((unpack for magic, unpack in _COMPRESSED.items() if head.startswith(magic)), None)
    if unpack is None:
        yield from _csv_rows(file, path)
    else:
        with unpack(file) as stream:
            yield from _csv_rows(stream, path)


def _zipped_rows(file: io.BufferedIOBase, path: Path) -> Iterator[Row]:
    try:
        with zipfile.ZipFile(file) as archive:
            if WORKBOOK in archive.namelist():
                yield from excel_rows(archive, path)
                return
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
            if len(names) != 1:
                what = f"the zip archive contains {len(names)} files, not one table"
                raise CohortError(what, where=path, fix="zip the CSV alone, or give the CSV itself")
            with archive.open(names[0]) as stream:
                yield from _csv_rows(stream, path)
    except _BAD_ZIP as error:
        fix = "unpack it and give the CSV itself; archives with a password are not supported"
        raise CohortError(f"the zip archive cannot be read: {error}", where=path, fix=fix) from None


def _csv_rows(stream: io.BufferedIOBase | IO[bytes], path: Path) -> Iterator[Row]:
    reader = csv.reader(_lines(stream, path), strict=True)
    before = 0
    try:
        for cells in reader:
            yield before + 1, cells
            before = reader.line_num
    except csv.Error as error:
        what = f"the table is not CSV: {error}"
        raise CohortError(what, where=f"{path}, line {before + 1}", fix="close every quote, or save it again") from None


def _lines(stream: io.BufferedIOBase | IO[bytes], path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text, each with its line ending."""
    characters = number = 0
    with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        while line := text.readline(MAX_LINE):
            number, characters = number + 1, characters + len(line)
            if characters > MAX_CHARACTERS or number > MAX_LINES or len(line) == MAX_LINE:
                of = f"{MAX_LINES:,} lines, {MAX_LINE >> 20} MB in a line or {MAX_CHARACTERS >> 20} MB in all"
                raise _too_large(path, of)
            if "\0" in line or (not line.isascii() and _NOT_UTF8.search(line)):
                raise CohortError("the table is not UTF-8 text", where=f"{path}, line {number}", fix=_CSV)
            yield line


def _too_large(path: Path, bounds: str) -> CohortError:
    return CohortError(f"the table is larger than {bounds}", where=path, fix=_SMALLER)
