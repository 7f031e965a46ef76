"""Files of published splits -> names of each part of each fold, in the forms that people keep them in."""

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from longvit.cohort.columns import PATIENT, SLIDE, find_column
from longvit.cohort.tables import read_strings, slide_name
from longvit.config import PARTS, Part
from preprocessing.errors import CohortError, few, short

MAX_JSON = 2**26
"""Largest size of a split in JSON, bytes."""
IDS = (*SLIDE, *PATIENT)
"""Columns of names, by preference, of a table with a column of folds or parts; otherwise its first column."""
WORDS: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "tune"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Word of a part, in lower case -> the part."""
_FOLD = re.compile(r"(?:fold|split)(?:_?([0-9]{1,9}))?")
_FORMS = "splits_<k>.csv, train_<k>.csv with val_<k>.csv, a table with a column fold or split, or JSON"


@dataclass(frozen=True)
class Split:
    """Slides or cases of each part of one fold, in the file's order, without file endings.

    Attributes:
        index: Number of the fold.
        path: The file, for errors.
        parts: Names of each part.
        files: All files that the fold was read from.
    """

    index: int
    path: Path
    parts: dict[Part, tuple[str, ...]]
    files: tuple[Path, ...]


Reader = Callable[[], Split]


def find_splits(where: Path) -> dict[int, Reader]:
    """Return a reader of each fold in a folder or a file, by the fold's number.

    A folder contains `splits_<k>.csv` with columns train, val and test of names (CLAM's `splits_<k>_bool.csv` if a fold
    has no other file), or `train_<k>.csv`, `val_<k>.csv` and `test_<k>.csv` with a name in each row, as PANDA's. A file
    is a table with a column `fold` of numbers or `split` of words, or JSON with lists of names.

    Raises:
        CohortError: There are no splits, two files have one number, or the file cannot be read.
    """
    if where.is_file():
        return _in_json(where) if where.suffix.lower() == ".json" else _in_columns(where)
    found = _in_folder(where) or _part_files(where)
    if not found:
        raise CohortError(
            "there is no splits_<k>.csv", where=where, fix=f"check the path of the splits; their forms are {_FORMS}"
        )
    return found


def _in_folder(folder: Path) -> dict[int, Reader]:
    found: dict[tuple[int, bool], list[str]] = {}
    for path in folder.glob("splits_*.csv"):
        if match := re.fullmatch(r"splits_([0-9]{1,9})(_bool)?", path.stem):
            found.setdefault((int(match[1]), bool(match[2])), []).append(path.name)
    _refuse_twins(found.values(), folder)
    return {k: partial(_read_parts, k, folder / found[k, (k, False) not in found][0]) for k, _ in found}


def _part_files(folder: Path) -> dict[int, Reader]:
    found: dict[int, dict[Part, list[str]]] = {}
    for path in folder.glob("*_*.csv"):
        if match := re.fullmatch(r"(train|val|test)_([0-9]{1,9})", path.stem):
            found.setdefault(int(match[2]), {}).setdefault(match[1], []).append(path.name)  # type: ignore[arg-type]
    for parts in found.values():
        _refuse_twins(parts.values(), folder)
    return {
        k: partial(_read_part_files, k, {part: folder / names[0] for part, names in parts.items()})
        for k, parts in found.items()
    }


def _refuse_twins(names: Iterable[list[str]], folder: Path) -> None:
    for same in names:
        if len(same) > 1:
            what = f"{' and '.join(sorted(same)[:2])} have the same number"
            raise CohortError(what, where=folder, fix="remove one of them")


def _read_parts(index: int, path: Path) -> Split:
    table = read_strings(path, missing=(), wanted=PARTS)
    _refuse_absent(table.columns, path)
    present: list[Part] = [part for part in PARTS if part in table]
    if table[present].isin(["True", "False", "TRUE", "FALSE"]).all(axis=None):
        ids = table.iloc[:, 0]
        columns: Mapping[Part, pd.Series] = {part: ids[table[part].str.lower() == "true"] for part in present}
    else:
        columns = {part: table[part].dropna() for part in present}
    return _split(index, path, columns)


def _read_part_files(index: int, paths: Mapping[Part, Path]) -> Split:
    first = next(iter(paths.values()))
    _refuse_absent(paths, first.parent)
    tables: dict[Part, pd.DataFrame] = {
        part: read_strings(paths[part], missing=(), wanted=IDS) for part in PARTS if part in paths
    }
    columns: dict[Part, pd.Series] = {part: _names(table).dropna() for part, table in tables.items()}
    return _split(index, paths["train"], columns, tuple(paths[part] for part in columns))


def _refuse_absent(present: Container[str], where: Path) -> None:
    absent = [part for part in PARTS[:2] if part not in present]
    if absent:
        what = f"the split has no {'column' if where.is_file() else 'file of'} {absent[0]}"
        raise CohortError(what, where=where, fix="add train, val and test")


def _names(table: pd.DataFrame) -> pd.Series:
    """Return the column with the names of slides or patients."""
    columns = [name for name in table.columns if name] or [table.columns[0]]
    return table[find_column(table.columns, IDS) or columns[0]]


def _in_columns(path: Path) -> dict[int, Reader]:
    """Return the folds of a table with columns `fold` or `split`, or of a file like `splits_0.csv`."""
    table = read_strings(path, missing=(), wanted=(*IDS, "fold", "split", *PARTS))
    if set(PARTS[:2]) <= set(table.columns):
        match = re.search(r"([0-9]{1,9})$", path.stem)
        index = int(match[1]) if match else 0
        return {index: partial(_read_parts, index, path)}
    columns = {name: match for name in table.columns if (match := _FOLD.fullmatch(name.lower()))}
    if not columns:
        raise CohortError("the table of splits has no column fold or split", where=path, fix=f"give {_FORMS}")
    found: dict[int, Reader] = {}
    names = _names(table)
    for column, match in columns.items():
        values = table[column].dropna().str.lower()
        words = values.map(WORDS)
        if words.notna().all():
            parts: dict[Part, pd.Series] = {part: names[words.index[words == part]] for part in PARTS}
            found[int(match[1] or 0)] = partial(_split, int(match[1] or 0), path, parts)
        elif values.str.fullmatch(r"[0-9]{1,4}(\.0)?").all():
            return _rotated(names, values.astype(float).astype(int), path)
        else:
            line = values.index[words.isna()][0]
            what = f"column {column} contains {short(table[column][line])!r}, neither a part nor the number of a fold"
            raise CohortError(what, where=f"{path}, line {line}", fix="write train, val and test, or 0, 1, 2, ...")
    return found


def _rotated(names: pd.Series, numbers: pd.Series, path: Path) -> dict[int, Reader]:
    """Return a split for each number: its names are test, those of the next number val, the others train."""
    folds = [int(k) for k in sorted(numbers.unique())]
    if len(folds) < 3:
        what = f"the column of folds has {len(folds)} numbers; train, val and test need three"
        raise CohortError(what, where=path, fix="number more folds, or write train, val and test")
    found: dict[int, Reader] = {}
    for place, k in enumerate(folds):
        val = folds[(place + 1) % len(folds)]
        part = numbers.map({k: "test", val: "val"}).fillna("train")
        found[k] = partial(_split, k, path, {one: names[part.index[part == one]] for one in PARTS})
    return found


def _in_json(path: Path) -> dict[int, Reader]:
    """Return the folds of `{"train": [...], "val": [...]}`, of a list of these, or of these by number or `fold_0`."""
    fix = 'write {"train": [...], "val": [...], "test": [...]}, or a list of these'
    if path.stat().st_size > MAX_JSON:
        raise CohortError(f"the split is larger than {MAX_JSON >> 20} MB", where=path, fix=fix)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CohortError(f"the split is not JSON: {error}", where=path, fix=fix) from None
    if isinstance(content, dict) and not any(str(key).lower() in WORDS for key in content):
        numbers = {key: _FOLD.fullmatch(key.lower()) or re.fullmatch("([0-9]{1,9})", key) for key in content}
        strange = [key for key, match in numbers.items() if not match]
        if strange:
            raise CohortError(f"{few(strange)} is neither a part nor a fold", where=path, fix=fix)
        indices = [int(match[1] or 0) for match in numbers.values() if match]
        twice = [k for k, times in Counter(indices).items() if times > 1]
        if twice:
            raise CohortError(f"fold {twice[0]} is there twice", where=path, fix="keep one of them")
        content = dict(zip(indices, content.values(), strict=True))
    else:
        content = dict(enumerate(content if isinstance(content, list) else [content]))
    if not content:
        raise CohortError("the split has no folds", where=path, fix=fix)
    return {k: partial(_split, k, path, _lists(k, fold, path, fix)) for k, fold in content.items()}


def _lists(k: int, fold: object, path: Path, fix: str) -> dict[Part, list[str]]:
    parts: dict[Part, list[str]] = {}
    for key, names in fold.items() if isinstance(fold, dict) else ():
        if key.lower() in WORDS and isinstance(names, list) and all(isinstance(one, str | int) for one in names):
            parts[WORDS[key.lower()]] = [str(one).strip() for one in names]
    if "train" not in parts or "val" not in parts:
        raise CohortError(f"fold {k} has no lists of names called train and val", where=path, fix=fix)
    return parts


def _split(index: int, path: Path, parts: Mapping[Part, Iterable[str]], files: tuple[Path, ...] | None = None) -> Split:
    return Split(index, path, {part: tuple(map(slide_name, names)) for part, names in parts.items()}, files or (path,))
