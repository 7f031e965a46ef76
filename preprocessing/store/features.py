"""Writing of features, one vector per tile, to a finished store."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.errors import StoreError
from preprocessing.jobs.atomic_folder import claimed
from preprocessing.jobs.files import is_plain_name
from preprocessing.store.arrays import VALUES_SHA256, values_sha256
from preprocessing.store.rules import MAX_CHANNELS
from preprocessing.store.schema import EMBEDDING
from preprocessing.store.store import open_store
from preprocessing.store.writer import write_array


def add_embeddings(
    path: Path | str, encoder: str, array: npt.NDArray[np.floating], attributes: Mapping[str, Any]
) -> None:
    """Add features to a finished store, atomically; features of the same name are replaced.

    Args:
        path: Path of the store.
        encoder: Name of the features in the store, a plain name without separators.
        array: Vectors (n, e), float16 or float32, finite, in the order of the store's tiles.
        attributes: Origin of the features: weights, versions, settings; any JSON. `encoder` is added if it is missing.
            `values_sha256` is always added; the values are compared with it when they are read.

    Raises:
        StoreError: The store is missing or unfinished, or the vectors do not fit it.
    """
    store = open_store(path)
    wrong = [
        sentence
        for sentence, holds in {
            f"{encoder!r} is not a plain name": is_plain_name(encoder),
            f"embeddings have shape {array.shape}, not ({len(store)}, e)": array.ndim == 2
            and len(array) == len(store)
            and 1 <= array.shape[1] <= MAX_CHANNELS,
            f"embeddings are {array.dtype}, not float16 or float32": str(array.dtype) in EMBEDDING.dtypes,
            "embeddings are not finite": bool(np.isfinite(array).all()),
            "attributes are not JSON, or have more than 64 kB": _fits_json(attributes),
        }.items()
        if not holds
    ]
    if wrong:
        raise StoreError("; ".join(wrong), where=path, fix="give one finite float16 or float32 vector per tile")
    with claimed(store.path / "embeddings" / encoder, "zarr.json") as folder:
        known = {"encoder": encoder} | dict(attributes) | {VALUES_SHA256: values_sha256(array)}
        write_array(folder, EMBEDDING, array, known)


def _fits_json(attributes: Mapping[str, Any]) -> bool:
    try:
        return len(json.dumps(dict(attributes), allow_nan=False)) < 1 << 16
    except (TypeError, ValueError, RecursionError):
        return False
