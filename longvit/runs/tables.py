"""Tables of runs: CSV files that are written whole."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from preprocessing.jobs.files import written_whole


def write_rows(path: Path, rows: Sequence[Mapping]) -> None:
    """Write rows as CSV, through a temporary file name; the columns are the union of all rows' columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows that `write_rows` wrote, as strings; written again, they are the same bytes."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
