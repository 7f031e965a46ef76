"""Text of a table -> encoding, delimiter and rows of cells."""

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from preprocessing.errors import CohortError

MAX_BYTES, MAX_LINE, MAX_LINES = 2**27, 2**24, 2_000_000
"""Bounds of one text, unpacked: bytes, characters of a line, lines. A cell has at most 131,072 characters (csv)."""
DELIMITERS = (",", ";", "\t")
"""Delimiters of cells; spreadsheets write semicolons where the comma is the decimal point."""
COMMENT = "#"
MOST_COMMENTS = 1000
"""Largest number of comment lines before the header."""
FIX = "save it as CSV (UTF-8)"
Row = tuple[int, list[str]]
Fitting = Callable[[list[str]], int]
"""Number of the wanted names in a row."""
_UTF16 = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_SEPARATOR = re.compile(r'"?sep=([,;\t])"?\r?\n?', re.IGNORECASE)
_COMMA_NUMBER = re.compile("[+-]?[0-9]+,[0-9]+")
_WHOLE = re.compile("([+-]?[0-9]+)?")
_THOUSANDS = re.compile("[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_QUOTED = re.compile('"[^"]*"?')


class Text(NamedTuple):
    """Rows of a text, the header first."""

    rows: Iterator[Row]
    delimiter: str
    notes: tuple[str, ...]


def open_text(stream: Iterable[bytes], path: Path, fitting: Fitting) -> Text:
    """Open a table of text.

    The text is UTF-8, UTF-16 or else Windows-1252, which is noted. A first line `sep=;` sets the delimiter; otherwise
    the delimiter cuts the header into most cells. Lines before the header that begin with `#` are left out.

    Args:
        stream: Bytes of the text, unpacked.
        path: The file, for errors.
        fitting: Number of wanted names in a row; a commented row with more of them than the next row is the header.

    Raises:
        CohortError: The bytes are not text, not CSV, or more than the bounds.
    """
    content = bytearray()
    for chunk in stream:
        content += chunk
        if len(content) > MAX_BYTES:
            raise _too_large(path)
    if content[257:262] == b"ustar":
        raise CohortError("the table is an archive (tar)", where=path, fix="unpack it and give the table itself")
    encoding = _encoding(content, path)
    notes = ("is not UTF-8 and was read as Windows-1252 (cp1252)",) if encoding == "cp1252" else ()
    lines = _lines(io.TextIOWrapper(io.BytesIO(content), encoding, newline=""), path)
    head, before, delimiter = _header(lines, fitting)
    return Text(_rows(itertools.chain(head, lines), before, delimiter, path), delimiter, notes)


def _encoding(content: bytearray, path: Path) -> str:
    """Return the encoding of a text; NUL bytes at only odd or only even places are UTF-16 without its mark."""
    encoding = _UTF16.get(bytes(content[:2]), "utf-8-sig")
    if encoding == "utf-8-sig":
        odd, even = content[1:4096:2].count(0), content[:4096:2].count(0)
        if bool(odd) != bool(even) and max(odd, even) > len(content[:4096]) // 4:
            encoding = "utf-16-le" if odd else "utf-16-be"
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            text = "\0"
        if encoding != "utf-8-sig" or _CONTROL.search(text):
            raise CohortError("the table is not text", where=f"{path}, line {line}", fix=FIX) from None
        return "cp1252"
    return encoding


def _lines(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """Yield the lines, each with its line ending."""
    number = 0
    while line := text.readline(MAX_LINE):
        number += 1
        if number > MAX_LINES or len(line) == MAX_LINE:
            raise _too_large(path)
        if "\0" in line:
            raise CohortError("the table is not text: it contains NUL", where=f"{path}, line {number}", fix=FIX)
        yield line


def _header(lines: Iterator[str], fitting: Fitting) -> tuple[list[str], int, str]:
    """Return the header and the line after it, the number of lines before the header, and the delimiter."""
    comments: list[str] = []
    first = next(lines, "")
    stated = _SEPARATOR.fullmatch(first)
    before = int(bool(stated))
    line = next(lines, "") if stated else first
    while (line.startswith(COMMENT) or not line.strip()) and line and len(comments) < MOST_COMMENTS:
        comments.append(line)
        line = next(lines, "")
    second = next(lines, "")
    delimiter = stated[1] if stated else _delimiter(line or (comments or [""])[-1], second)
    for place, comment in enumerate(comments):
        bare = comment[1:].lstrip(" ")
        if fitting(_cut(bare, delimiter)) > fitting(_cut(line, delimiter)):
            return [bare, *comments[place + 1 :], line, second], before + place, delimiter
    return [line, second], before + len(comments), delimiter


def _cut(line: str, delimiter: str) -> list[str]:
    with suppress(csv.Error):
        return next(csv.reader([line], delimiter=delimiter), [])
    return []


def _delimiter(header: str, second: str) -> str:
    """Return the delimiter that cuts the header into most cells, or of a tie that of the next row."""
    counts = {d: _QUOTED.sub("", header).count(d) for d in DELIMITERS}
    return max(DELIMITERS, key=lambda d: (counts[d], counts[d] == _QUOTED.sub("", second).count(d)))


def _rows(lines: Iterable[str], before: int, delimiter: str, path: Path) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    read = 0
    try:
        for cells in reader:
            yield before + read + 1, cells
            read = reader.line_num
    except csv.Error as error:
        where = f"{path}, line {before + read + 1}"
        raise CohortError(
            f"the table is not CSV: {error}", where=where, fix="close every quote, or save it again"
        ) from None


def with_points(column: Sequence[str]) -> Sequence[str]:
    """Return a column of numbers with points for their decimal commas; any other column as it is.

    Commas that may be those of thousands (1,234) stay.

    >>> with_points(["12,5", "", "3"]), with_points(["1,234"]), with_points(["1,5", "a"])
    (['12.5', '', '3'], ['1,234'], ['1,5', 'a'])
    """
    commas = [cell for cell in column if "," in cell]
    if not commas or all(map(_THOUSANDS.fullmatch, commas)):
        return column
    numbers = all(_COMMA_NUMBER.fullmatch(cell) or _WHOLE.fullmatch(cell) for cell in column)
    return [cell.replace(",", ".") for cell in column] if numbers else column


def _too_large(path: Path) -> CohortError:
    of = f"{MAX_LINES:,} lines, {MAX_LINE >> 20} MB in a line or {MAX_BYTES >> 20} MB in all"
    return CohortError(f"the table is larger than {of}", where=path, fix="keep the columns and rows that are needed")
