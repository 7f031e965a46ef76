"""Parquet files -> rows of strings, by pyarrow if it is installed."""

import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO

from preprocessing.errors import CohortError, few
from preprocessing.tables.text import MAX_BYTES, Row

_CSV = "save it as CSV (UTF-8)"


def parquet_rows(file: IO[bytes], path: Path, max_cells: int) -> Iterator[Row]:
    """Yield the number and the cells of each row, the header first.

    Raises:
        CohortError: pyarrow is not installed; or the file is damaged, too large, or has columns that contain others.
    """
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        what, fix = "Parquet files are read by pyarrow, which is not installed", f"pip install pyarrow, or {_CSV}"
        raise CohortError(what, where=path, fix=fix) from None
    try:
        content = pq.ParquetFile(file, thrift_string_size_limit=2**24, thrift_container_size_limit=2**20)
        rows, schema = content.metadata.num_rows, content.schema_arrow
        size = sum(content.metadata.row_group(i).total_byte_size for i in range(content.metadata.num_row_groups))
        if rows * len(schema) > max_cells or size > MAX_BYTES:
            what = f"the Parquet file is larger than {max_cells:,} cells or {MAX_BYTES >> 20} MB"
            raise CohortError(what, where=path, fix="keep the columns and rows that are needed")
        nested = [field.name for field in schema if pa.types.is_nested(field.type)]
        if nested:
            what = f"columns of the Parquet file contain lists or columns: {few(nested)}"
            raise CohortError(what, where=path, fix="leave them out, or give each value a column of its own")
        yield 1, list(schema.names)
        number = 1
        for batch in content.iter_batches(4096):
            for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield number, [written(cell) for cell in cells]
    except (pa.ArrowException, OSError) as error:
        what = f"the Parquet file cannot be read: {error}"
        raise CohortError(what[:300], where=path, fix=f"copy it again, or {_CSV}") from None


def written(value: object) -> str:
    """Return the text of a value: whole numbers without a point, nothing for a missing value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else str(value)
