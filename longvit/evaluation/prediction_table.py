"""Bytes of a predictions.csv -> a table of strings with the columns that are used, within bounds."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd

from preprocessing.errors import CohortError, few, short

IDENTITY = ("patient_id", "slide_id", "fold", "split")
SURVIVAL = ("time", "event", "risk")
OPTIONAL = ("shuffled", "time_unit")
NAMED = 20
"""Columns that a refusal names."""
MAX_BYTES, MAX_ROWS, MAX_CLASSES, MAX_NAME = 100_000_000, 250_000, 100, 100
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
EXPECTED = "give a predictions.csv as `longvit finetune` writes it: UTF-8, commas, one header line"

Task = Literal["subtyping", "survival"]


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of predictions.

    Raises:
        CohortError: The file cannot be read or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CohortError(f"the predictions cannot be read ({error.strerror})", where=path, fix=EXPECTED) from error
    if len(content) > MAX_BYTES:
        raise CohortError(f"the predictions have more than {MAX_BYTES:,} bytes", where=path, fix="evaluate fewer rows")
    return content


def read_strings(content: bytes, path: Path) -> tuple[pd.DataFrame, Task, tuple[str, ...]]:
    """Return the columns that are used, indexed by line number; the task; and the classes, none for survival.

    Raises:
        CohortError: The file is not CSV, is too large, or its header is not that of predictions.
    """
    rows = _rows(content, path)
    header = next(rows)[1]
    task, classes = _task(header, path)
    used = {*IDENTITY, *OPTIONAL, *SURVIVAL, "label", *(f"p_{name}" for name in classes)}
    places = [i for i, name in enumerate(header) if name in used]
    numbers, kept, ragged = [], [], []
    for number, row in rows:
        if len(row) != len(header):
            ragged.append(number)
            continue
        numbers.append(number)
        kept.append([row[i] for i in places])
    if ragged:
        what = f"a row has not the {len(header)} values that the header names"
        raise CohortError(what, where=f"{path}, {name_lines(ragged)}", fix="quote values that contain a comma")
    table = pd.DataFrame(kept, columns=[header[i] for i in places], index=numbers, dtype=str)
    return table, task, classes


def _rows(content: bytes, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and values of each line that is not empty, the header first.

    Raises:
        CohortError: The file is not CSV, or has no rows or too many.
    """
    count = 0
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        for row in reader:
            if any(row):
                count += 1
                if count > MAX_ROWS + 1:
                    fix = "evaluate fewer folds or shuffles at once"
                    raise CohortError(f"the predictions have more than {MAX_ROWS:,} rows", where=path, fix=fix)
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"the predictions are no CSV file ({error})", where=path, fix=EXPECTED) from error
    if count < 2:
        raise CohortError("the predictions have no rows", where=path, fix=EXPECTED)


def _task(header: list[str], path: Path) -> tuple[Task, tuple[str, ...]]:
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        what = f"columns appear twice: {few(repeated, NAMED)}"
        raise CohortError(what, where=f"{path}, line 1", fix="leave one column of each name")
    classes = tuple(name.removeprefix("p_") for name in header if name.startswith("p_"))
    subtyping = "label" in header or bool(classes)
    survival = any(name in header for name in SURVIVAL)
    if subtyping == survival:
        what = "the columns are those of subtyping and of survival at once" if survival else "the task is not clear"
        fix = "keep either `label, p_<class>...` or `time, event, risk`; two tasks are two files"
        raise CohortError(what, where=f"{path}, line 1: {few(header, NAMED)}", fix=fix)
    needed = IDENTITY + (SURVIVAL if survival else ("label",))
    missing = [f"`{name}`" for name in needed if name not in header]
    if subtyping and len(classes) < 2:
        missing.append("two or more `p_<class>`")
    if missing:
        fix = f"columns must be {', '.join(IDENTITY)}, then label, p_<class>... or time, event, risk"
        raise CohortError(f"columns are missing: {', '.join(missing)}", where=f"{path}, line 1", fix=fix)
    _refuse_classes(classes, path)
    return ("survival", ()) if survival else ("subtyping", classes)


def _refuse_classes(classes: tuple[str, ...], path: Path) -> None:
    where, fix = f"{path}, line 1", "name each class in a column p_<class>"
    if len(classes) > MAX_CLASSES:
        raise CohortError(f"there are {len(classes):,} classes, more than {MAX_CLASSES}", where=where, fix=fix)
    odd = [short(name) for name in classes if not name.strip() or len(name) > MAX_NAME or CONTROL.search(name)]
    if odd:
        what = (
            f"a class has no name, one of more than {MAX_NAME} characters, or one with control characters: {odd[0]!r}"
        )
        raise CohortError(what, where=where, fix=fix)


def name_lines(lines: pd.Index | list[int]) -> str:
    """Return the first line numbers in words, and how many more there are."""
    return f"line{'s' if len(lines) > 1 else ''} {few([str(line) for line in lines])}"
