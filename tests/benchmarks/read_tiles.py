"""Random tiles for training, from the store or from the slide by OpenSlide; prints what it took.

    python tests/benchmarks/read_tiles.py store stores/slide.zarr slide.svs --workers 2

The OpenSlide loader is that of CLAM's and TRIDENT's datasets: `read_region` at the tile's corner, Pillow to RGB, NumPy.
It reads at the places of the store's tiles, from level 0, so the slide must have the store's resolution. Workers of
the store are threads, those of OpenSlide processes (as in a DataLoader): for each what is faster.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide

from preprocessing import PatchStore, open_store

Tiles = npt.NDArray[np.uint8]  # (k, T, T, 3)


def openslide_batch(slide: Path, xy_l0: npt.NDArray[np.int64], side: int) -> Tiles:
    """Tiles (k, side, side, 3) whose corners are `xy_l0` (k, 2); the slide is opened once in each process."""
    if slide not in _open:
        _open[slide] = openslide.OpenSlide(slide)
    tiles = [_open[slide].read_region((x, y), 0, (side, side)).convert("RGB") for x, y in xy_l0.tolist()]
    return np.stack([np.asarray(tile) for tile in tiles])


_open: dict[Path, openslide.OpenSlide] = {}


def count_read(read: Callable[[npt.NDArray[np.int64]], Tiles], batch: npt.NDArray[np.int64]) -> int:
    """Read a batch and return the number of its tiles: a worker process need not send pixels back."""
    return len(read(batch))


def reader(source: str, store: PatchStore, slide: Path) -> tuple[Callable[..., Tiles], npt.NDArray[np.int64]]:
    """What reads a batch, and what it is asked for, one row per tile: indices, or corners."""
    if source == "store":
        return store.read_tiles, np.arange(len(store))
    return partial(openslide_batch, slide, side=store.tile_st), store.xy_l0


def pool(source: str, workers: int) -> Executor:
    """Threads for the store, forked processes for OpenSlide."""
    if source == "store":
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=["store", "openslide"])
    parser.add_argument("store", type=Path)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tiles", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    a = parser.parse_args()
    read, rows = reader(a.source, open_store(a.store), a.slide)
    order = np.random.default_rng(0).permutation(len(rows))[: a.tiles]
    batches = [rows[order[i : i + a.batch]] for i in range(0, len(order), a.batch)]
    with pool(a.source, a.workers) as workers:
        list(workers.map(partial(count_read, read), batches[: a.workers]))  # start the workers, open the files
        start = time.perf_counter()
        tiles = sum(workers.map(partial(count_read, read), batches))
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "tiles": tiles}))


if __name__ == "__main__":
    main()
