"""Random tiles for training, from the store or from the slide by OpenSlide; prints seconds and tiles.

    python tests/benchmarks/read_tiles.py store stores/slide.zarr slide.svs --workers 2

`loader` is the work of a DataLoader's worker in CLAM and TRIDENT: `read_region` at the tile's corner, Pillow to RGB,
torchvision's ToTensor and Normalize, one tensor of floats for a batch. `openslide` omits the two transforms. Both read
at the places of the store's tiles, from level 0. If the slide is finer than the store, they resize with OpenCV, as
TRIDENT does. `store` is the work of our worker: pixels as bytes, normalised by the device. `decoder` is the bound for
readers of JPEG tiles: the store's bytes, already in memory, decoded into one buffer.

Workers are processes, as in a DataLoader; each opens its store or slide once. Two threads on the store took 14 to 28 %
longer than two processes, because they wait for Python's global lock.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import openslide
import zarr
from PIL.Image import Image

from preprocessing import PatchStore, open_store
from preprocessing.jpeg.codec import decode_into, empty_pixels
from preprocessing.store.arrays import CRC_BYTES
from preprocessing.store.shards import read_chunks, read_index, shard_path

if TYPE_CHECKING:
    import torch

Tiles = npt.NDArray[np.uint8]  # (k, T, T, 3)

BATCHES_AT_ONCE = 4
"""Batches per message to a worker, so that the pool's messages are not measured."""
opened_store, opened_slide = cache(open_store), cache(openslide.OpenSlide)
"""Stores and slides that a process has opened; they stay open."""


def store_batch(store: Path, indices: npt.NDArray[np.int64]) -> Tiles:
    """Read the tiles (k, T, T, 3) at indices (k,)."""
    return opened_store(store).read_tiles(indices)


def openslide_tiles(slide: Path, side_l0: int, side: int, xy_l0: npt.NDArray[np.int64]) -> Iterator[Image | Tiles]:
    """Yield tiles of `side` pixels with corners `xy_l0` (k, 2), from squares of `side_l0` level-0 pixels a side."""
    read, size = opened_slide(slide).read_region, (side_l0, side_l0)
    for x, y in xy_l0.tolist():
        tile = read((x, y), 0, size).convert("RGB")
        yield tile if side_l0 == side else cv2.resize(np.asarray(tile), (side, side))


def openslide_batch(*which: Any) -> Tiles:
    """Read tiles (k, side, side, 3); the arguments are those of `openslide_tiles`."""
    return np.stack([np.asarray(tile) for tile in openslide_tiles(*which)])


@cache
def to_input() -> Callable[[Tiles], "torch.Tensor"]:
    """Return the transforms of CLAM's and TRIDENT's datasets."""
    import torch  # here, because the other sources do not need torch
    from torchvision.transforms import Compose, Normalize, ToTensor

    torch.set_num_threads(1)  # as in a DataLoader's worker
    return Compose([ToTensor(), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


def loader_batch(*which: Any) -> "torch.Tensor":
    """Read the same tiles as a model's input (k, 3, side, side), float32."""
    import torch

    return torch.stack([to_input()(tile) for tile in openslide_tiles(*which)])


@cache
def encoded(store: PatchStore) -> list[bytes]:
    """Return the JPEG of every tile, without its checksum."""
    tiles, per_shard, n = store.path / "tiles", zarr.open_array(store.path / "tiles").shards[0], len(store)
    shards = [(shard_path(tiles, first // per_shard), min(per_shard, n - first)) for first in range(0, n, per_shard)]
    chunks = (chunk for path, k in shards for chunk in read_chunks(path, read_index(path, per_shard), np.arange(k)))
    return [chunk[:-CRC_BYTES] for chunk in chunks]


def decoder_batch(store: Path, indices: npt.NDArray[np.int64]) -> Tiles:
    """Decode the tiles at indices (k,) into one buffer, and return it k times (k, T, T, 3)."""
    opened = opened_store(store)
    jpegs, buffer = encoded(opened), empty_pixels(opened.tile_st, opened.tile_st, 3)
    for i in indices.tolist():
        decode_into(jpegs[i], buffer)
    return np.broadcast_to(buffer, (len(indices), *buffer.shape))


def count_read(read: Callable[[npt.NDArray[np.int64]], Tiles], batch: npt.NDArray[np.int64]) -> int:
    """Read a batch and return the number of its tiles: a worker need not send pixels back."""
    return len(read(batch))


def reader(source: str, store: PatchStore, slide: Path) -> tuple[Callable[..., Tiles], npt.NDArray[np.int64]]:
    """Return the function that reads a batch, and its possible inputs, one row per tile: indices or corners."""
    if source == "decoder":
        encoded(opened_store(store.path))  # before workers are forked, so that they inherit it
    if source not in ("openslide", "loader"):
        return partial({"store": store_batch, "decoder": decoder_batch}[source], store.path), np.arange(len(store))
    side_l0 = round(store.attributes["side_l0"][0])
    batch = openslide_batch if source == "openslide" else loader_batch
    return partial(batch, slide, side_l0, store.tile_st), store.xy_l0


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=["store", "loader", "openslide", "decoder"])
    parser.add_argument("store", type=Path)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tiles", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    a = parser.parse_args()
    read, rows = reader(a.source, open_store(a.store), a.slide)
    order = np.random.default_rng(0).permutation(len(rows))[: a.tiles]
    batches = [rows[order[i : i + a.batch]] for i in range(0, len(order), a.batch)]
    with ProcessPoolExecutor(a.workers, mp_context=multiprocessing.get_context("fork")) as workers:
        list(workers.map(partial(count_read, read), batches[: 4 * a.workers]))  # start the workers, open the files
        start = time.perf_counter()
        tiles = sum(workers.map(partial(count_read, read), batches, chunksize=BATCHES_AT_ONCE))
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "tiles": tiles}))


if __name__ == "__main__":
    main()
