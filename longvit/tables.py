"""Tables as the field writes them (CSV, zipped or not, Excel) -> rows of strings under two known names."""

import re
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from preprocessing.errors import CohortError

_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".dcm", ".scn", ".zarr", ".h5", ".pt")
_STAMP = {"PATIENT": "case_id", "FILENAME": "slide_id"}
_TCGA = re.compile(r"TCGA-\w{2}-\w{4}")


def slide_name(name: str) -> str:
    """A slide id without the file ending that some tables append."""
    return next((name[: -len(suffix)] for suffix in _SUFFIXES if name.lower().endswith(suffix)), name)


def barcodes(slide_ids: Iterable[str]) -> dict[str, str]:
    """Patient of each slide id that is a TCGA barcode: its first twelve characters."""
    return {slide: match[0] for slide in slide_ids if (match := _TCGA.match(slide))}


def few(names: list[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_strings(path: Path) -> pd.DataFrame:
    """A CSV, zipped or not, or the first sheet of an Excel file, with every value as it is written.

    Raises:
        CohortError: It is neither, or the library that reads Excel is not installed.
    """
    excel = path.suffix.lower() in (".xlsx", ".xlsm")
    try:
        return pd.read_excel(path, dtype=str, engine="openpyxl") if excel else pd.read_csv(path, dtype=str)
    except ImportError:
        fix = "pip install openpyxl, or export the sheet as CSV"
        raise CohortError("Excel tables need the library openpyxl", where=path, fix=fix) from None
    except (ValueError, KeyError, BadZipFile) as error:
        what = f"the table cannot be read as {'Excel' if excel else 'CSV'}: {error}"
        raise CohortError(what, where=path, fix="export it as CSV") from None


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Rows of strings in which `columns` are there and filled in; STAMP's PATIENT is case_id, its FILENAME slide_id.

    Raises:
        CohortError: The file or a column is missing, or a value of these columns.
    """
    if not path.is_file():
        raise CohortError("the table does not exist", where=path, fix="check the path")
    table = read_strings(path)
    table = table.rename(columns={stamp: ours for stamp, ours in _STAMP.items() if ours not in table})
    missing = [name for name in columns if name not in table]
    if missing:
        raise CohortError(
            f"the table has no column {' nor '.join(missing)}",
            where=f"{path}, columns: {few(list(table.columns), 12)}",
            fix="rename the column, name yours in the config (task.label_column, ...), or add the slide_table",
        )
    for name in columns:
        empty = np.flatnonzero(table[name].isna())
        if len(empty):
            raise CohortError(
                f"{len(empty)} of {len(table)} rows have no {name}",
                where=f"{path}, line {empty[0] + 2}",
                fix="fill in the value, or remove the row",
            )
    if "slide_id" in columns:
        table["slide_id"] = table["slide_id"].map(slide_name)
    return table
