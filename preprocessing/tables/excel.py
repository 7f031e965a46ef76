"""Excel files (Office Open XML) -> cells of one sheet as strings, read as a stream within bounds."""

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from zipfile import ZipFile

from preprocessing.errors import CohortError, few
from preprocessing.tables.text import Fitting, Row

WORKBOOK = "xl/workbook.xml"
_RELATIONS = "xl/_rels/workbook.xml.rels"
_STRINGS = "xl/sharedStrings.xml"
MAX_BYTES, MAX_ELEMENTS, MAX_DEPTH, MAX_TOKEN, MAX_TEXT = 2**27, 2**21, 64, 2**20, 2**17
"""Bounds of one part of the file: bytes of unpacked XML, elements, their nesting, bytes of one tag, characters of one
cell."""
MAX_SHEETS = 20
"""Largest number of sheets that are searched for the wanted columns."""
_REFERENCE = re.compile(r"([A-Z]{1,3})[0-9]{1,7}")
_CHUNK = 2**16
_FIX = "save the sheet as CSV (UTF-8)"

Attributes = dict[str, str]


def excel_rows(archive: ZipFile, path: Path, fitting: Fitting) -> Iterator[Row]:
    """Yield the number and the cells of each row of the sheet whose first row has most wanted names.

    Dates are the day numbers that Excel stores.

    Raises:
        CohortError: The file is damaged, or larger than the bounds; or two sheets fit.
        ExpatError: A part of the file is not XML.
    """
    strings = _Strings(path)
    if _STRINGS in archive.namelist():
        for _ in _parsed(archive, _STRINGS, strings, path):
            pass
    sheets = _sheets(archive, path)
    wanted = {}
    for name, part in sheets.items() if len(sheets) > 1 else ():
        with closing(_sheet_rows(archive, part, strings.texts, path)) as rows:
            wanted[name] = fitting(next((cells for _, cells in rows if any(cells)), []))
    best = max(wanted.values(), default=0)
    chosen = [name for name in sheets if not best or wanted[name] == best]
    if best and len(chosen) > 1:
        what = f"{len(chosen)} sheets of the Excel file have the columns: {few(chosen)}"
        raise CohortError(what, where=path, fix="keep one of them, or save the right one as CSV (UTF-8)")
    yield from _sheet_rows(archive, sheets[chosen[0]], strings.texts, path)


def _sheet_rows(archive: ZipFile, part: str, strings: list[str], path: Path) -> Generator[Row, None, None]:
    sheet = _Sheet(path, strings=strings)
    for _ in _parsed(archive, part, sheet, path):
        yield from sheet.take()
    yield from sheet.take()


class _Part:
    """Handlers of the XML elements of a part, by local name."""

    def start(self, name: str, attributes: Attributes) -> None: ...

    def end(self, name: str) -> None: ...

    def text(self, text: str) -> None: ...


@dataclass
class _Elements(_Part):
    """Attributes of the elements of one name."""

    name: str
    found: list[Attributes] = field(default_factory=list)

    def start(self, name: str, attributes: Attributes) -> None:
        if name == self.name:
            self.found.append(attributes)


@dataclass
class _Text(_Part):
    """Text within `t` (and `v`), without the pronunciation (`rPh`) of Japanese text."""

    path: Path
    pieces: list[str] = field(default_factory=list)
    inside: bool = False
    pronounced: bool = False

    def start(self, name: str, attributes: Attributes) -> None:
        self.inside = name in ("t", "v") and not self.pronounced
        self.pronounced = self.pronounced or name == "rPh"

    def end(self, name: str) -> None:
        self.inside = False
        self.pronounced = self.pronounced and name != "rPh"

    def text(self, text: str) -> None:
        if self.inside:
            self.pieces.append(text)

    def taken(self) -> str:
        text, self.pieces = "".join(self.pieces), []
        if len(text) > MAX_TEXT:
            raise _too_large(self.path)
        return text


@dataclass
class _Strings(_Text):
    """Shared texts, to which cells refer by number."""

    texts: list[str] = field(default_factory=list)

    def end(self, name: str) -> None:
        super().end(name)
        if name == "si":
            self.texts.append(self.taken())


@dataclass
class _Sheet(_Text):
    """Rows of a sheet."""

    strings: list[str] = field(default_factory=list)
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    number: int = 0
    cells: list[str] = field(default_factory=list)
    column: int = 0
    kind: str = "n"

    def start(self, name: str, attributes: Attributes) -> None:
        super().start(name, attributes)
        if name == "row":
            number = attributes.get("r")
            if number and (not re.fullmatch("[0-9]{1,7}", number) or int(number) <= self.number):
                raise self.damaged(f"row {number[:20]} after row {self.number}")
            self.number, self.cells, self.column = int(number or self.number + 1), [], 0
        elif name == "c":
            self.column = self.place(attributes["r"]) if "r" in attributes else self.column + 1
            self.kind = attributes.get("t", "n")

    def end(self, name: str) -> None:
        super().end(name)
        if name == "c" and (value := self.value(self.taken())):
            self.cells += [""] * (self.column - len(self.cells))
            self.cells[self.column - 1] = value
        elif name == "row":
            self.rows.append((self.number, self.cells))

    def take(self) -> list[tuple[int, list[str]]]:
        """Return the completed rows and forget them."""
        rows, self.rows = self.rows, []
        return rows

    def place(self, reference: str) -> int:
        """Return the column of a cell such as `AB12`, from 1."""
        match = _REFERENCE.fullmatch(reference)
        if not match:
            raise self.damaged(f"cell {reference[:20]!r}")
        column = 0
        for letter in match[1]:
            column = 26 * column + ord(letter) - ord("A") + 1
        return column

    def value(self, written: str) -> str:
        """Return the text of a cell: a number in its shortest form, True or False, or the text itself."""
        try:
            match self.kind:
                case "s":
                    return self.strings[int(written)] if written else ""
                case "b":
                    return str(written == "1")
                case "n" if written:
                    number = float(written)
                    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
        except (ValueError, IndexError):
            raise self.damaged(f"value {written[:20]!r}") from None
        return written

    def damaged(self, what: str) -> CohortError:
        where = f"{self.path}, row {self.number}"
        return CohortError(f"the Excel file is damaged: {what}", where=where, fix=_FIX)


def _sheets(archive: ZipFile, path: Path) -> dict[str, str]:
    """Return the part of each sheet, by the sheet's name, in the order of the workbook."""
    sheets, relations = _Elements("sheet"), _Elements("Relationship")
    for part, name in ((sheets, WORKBOOK), (relations, _RELATIONS)):
        for _ in _parsed(archive, name, part, path):
            pass
    target_of = {relation.get("Id"): relation.get("Target", "") for relation in relations.found}
    parts = {}
    for sheet in sheets.found[:MAX_SHEETS]:
        target = target_of.get(next((value for key, value in sheet.items() if key.endswith(" id")), None), "")
        part = target[1:] if target.startswith("/") else f"xl/{target}"
        if part in archive.namelist():
            parts[sheet.get("name", part)] = part
    if not parts:
        raise CohortError("the Excel file has no sheet", where=path, fix=_FIX)
    return parts


def _parsed(archive: ZipFile, name: str, part: _Part, path: Path) -> Iterator[None]:
    """Feed a part of the file to its handlers, and yield after every chunk."""
    parser, depth, elements = expat.ParserCreate(namespace_separator=" "), 0, 0
    parser.buffer_text = True

    def start(name: str, attributes: Attributes) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            raise _too_large(path)
        part.start(name.rpartition(" ")[2], attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        part.end(name.rpartition(" ")[2])

    def declared(*_: object) -> None:
        raise CohortError("the Excel file declares XML entities, which Excel does not write", where=path, fix=_FIX)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = part.text, declared
    if name not in archive.namelist():
        raise CohortError(f"the Excel file has no {name}", where=path, fix=_FIX)
    if archive.getinfo(name).file_size > MAX_BYTES:
        raise _too_large(path)
    with archive.open(name) as stream:
        fed = 0
        while chunk := stream.read(_CHUNK):
            fed += len(chunk)
            parser.Parse(chunk)
            if fed - parser.CurrentByteIndex > MAX_TOKEN:  # expat before 2.6 scans a long token again with every chunk
                raise _too_large(path)
            yield
    parser.Parse(b"", True)


def _too_large(path: Path) -> CohortError:
    bounds = f"{MAX_BYTES >> 20} MB, {MAX_ELEMENTS:,} elements or {MAX_TEXT:,} characters in a cell"
    return CohortError(
        f"the Excel file is larger than {bounds}",
        where=path,
        fix="keep the columns and rows that are needed, or export it as CSV",
    )
