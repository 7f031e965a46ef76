"""Adding of features, one vector per tile, to a finished store."""

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
from preprocessing.store.writer import create_array


def add_embeddings(
    path: Path | str, encoder: str, array: npt.NDArray[np.floating], attributes: Mapping[str, Any]
) -> None:
    """Add one vector per tile to a finished store, whole or not at all; replaces those of the same name.

    Args:
        path: The store.
        encoder: Name under which they are kept, a plain name without separators.
        array: (n, e), float16 or float32, finite, in the order of the store's tiles.
        attributes: Where they come from: weights, versions, settings; whatever JSON can hold. `encoder` is added unless
            it is given, and `values_sha256`, with which the values are compared when they are read.

    Raises:
        StoreError: No finished store, or vectors that do not fit it.
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
            "attributes are more than JSON can hold, or than 64 kB": _fits_json(attributes),
        }.items()
        if not holds
    ]
    if wrong:
        raise StoreError("; ".join(wrong), where=path, fix="give one finite float16 or float32 vector per tile")
    with claimed(store.path / "embeddings" / encoder, "zarr.json") as folder:
        known = {"encoder": encoder} | dict(attributes) | {VALUES_SHA256: values_sha256(array)}
        create_array(folder, EMBEDDING, array.shape, known, dtype=str(array.dtype))[:] = array


def _fits_json(attributes: Mapping[str, Any]) -> bool:
    try:
        return len(json.dumps(dict(attributes), allow_nan=False)) < 1 << 16
    except (TypeError, ValueError, RecursionError):
        return False
