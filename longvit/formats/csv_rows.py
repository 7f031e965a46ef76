"""CSV files of runs: rows written completely, rows read within bounds, cells read as exact numbers."""

import csv
import io
import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from preprocessing.errors import CohortError, few
from preprocessing.jobs.files import written_whole

JOINED = ";"
"""Separator of several values in one cell."""
NAMED = 20
"""Largest number of columns that an error lists."""


class Bounds(NamedTuple):
    """Largest size of a CSV file, and the words of its error messages."""

    max_bytes: int
    max_rows: int
    subject: str
    """Subject and verb of sentences about the content: `the predictions have`."""
    expected: str
    """Fix for a file that is not such a CSV file."""
    smaller: str
    """Fix for a file with too many rows."""


def write_rows(path: Path, rows: Sequence[Mapping]) -> None:
    """Write rows as CSV through a temporary name; columns are the keys of all rows, in the order of appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows that `write_rows` wrote, as strings; if written again, they are the same bytes."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def bounded_rows(content: bytes, path: Path, bounds: Bounds) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each non-empty row, the header first.

    Args:
        content: Bytes of the file.
        path: Path of the file, for errors.
        bounds: Largest size.

    Raises:
        CohortError: The file is not CSV, has no rows or too many, or has two columns of the same name.
    """
    count = 0
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        for row in reader:
            if any(row):
                count += 1
                if count == 1:
                    _refuse_repeated(row, path)
                if count > bounds.max_rows + 1:
                    what = f"{bounds.subject} more than {bounds.max_rows:,} rows"
                    raise CohortError(what, where=path, fix=bounds.smaller)
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        what = f"the table is not a CSV file ({error})"
        raise CohortError(what, where=path, fix=bounds.expected) from error
    if count < 2:
        raise CohortError(f"{bounds.subject} no rows", where=path, fix=bounds.expected)


def string_table(
    rows: Iterator[tuple[int, list[str]]], header: list[str], used: Container[str], path: Path
) -> pd.DataFrame:
    """Return the used columns of all rows as strings, indexed by line number.

    Args:
        rows: Rows below the header, from `bounded_rows`.
        header: Names of all columns.
        used: Names of the columns to keep.
        path: Path of the file, for errors.

    Raises:
        CohortError: A row has another number of cells than the header, or as in `bounded_rows`.
    """
    places = [i for i, name in enumerate(header) if name in used]
    numbers, kept, ragged = [], [], []
    for number, row in rows:
        if len(row) != len(header):
            ragged.append(number)
            continue
        numbers.append(number)
        kept.append([row[i] for i in places])
    if ragged:
        what = f"a row does not have the {len(header)} values that the header names"
        raise CohortError(what, where=f"{path}, {name_lines(ragged)}", fix="quote values that contain a comma")
    return pd.DataFrame(kept, columns=[header[i] for i in places], index=numbers, dtype=str)


def name_lines(lines: pd.Index | list[int]) -> str:
    """Return the first line numbers in words, and the number of further lines."""
    return f"line{'s' if len(lines) > 1 else ''} {few([str(line) for line in lines])}"


def exact_numbers(text: pd.Series) -> pd.Series:
    """Return the float nearest to each decimal number; NaN for any other text.

    `pandas.to_numeric` and `read_csv` are wrong in the last bit for some numbers, so that ties appear and vanish.
    """
    return text.map(_exact).astype(float)


def _exact(text: object) -> float:
    try:
        number = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    decimal = math.isfinite(number) and str(text).isascii() and "_" not in str(text)
    return number if decimal else math.nan


def _refuse_repeated(header: list[str], path: Path) -> None:
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        what = f"columns appear twice: {few(repeated, NAMED)}"
        raise CohortError(what, where=f"{path}, line 1", fix="leave one column of each name")
