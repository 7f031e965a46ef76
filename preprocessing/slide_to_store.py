"""One slide -> one store: find the tissue, choose the tiles, read and encode them."""

import hashlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.config import TileConfig, TissueConfig
from preprocessing.errors import SlideError
from preprocessing.frames import side_l0_from_st
from preprocessing.grid import TileGrid, select_tiles
from preprocessing.jpeg import Jpeg
from preprocessing.manifest import SlideEntry
from preprocessing.schema import MASK_CLASSES, Source, StoreAttributes
from preprocessing.slide import Slide, read_slide
from preprocessing.store import write_store
from preprocessing.tissue import FOCUS_FACTOR, Image, Mask, classify, mark_blurred, sharpness

FOCUS_BLOCK = 128
"""Side of the block of mask pixels whose focus is judged at once."""
MAX_ENLARGING = 1.25
"""How much coarser than the store a slide may be: 20x scanners range from 0.46 to 0.55 micrometres per pixel."""
NOT_IN_STORE = {"slides", "out", "workers", "overwrite"}
"""Settings of the run that do not change what is in a store."""
LIBRARIES = (
    "longvit",
    "numpy",
    "zarr",
    "imagecodecs",
    "openslide-python",
    "openslide-bin",
    "tifffile",
    "opencv-python-headless",
)
"""What a store's pixels depend on; their versions are written down."""


def tile_slide(entry: SlideEntry, path: Path, config: TileConfig) -> StoreAttributes:
    """Write the store of one slide to `path`; returns what was written down about it.

    Raises:
        SlideError: The slide cannot be read, does not state its resolution, is too coarse, or shows no tissue.
        StoreError: Another process is writing this store.
    """
    jpeg = Jpeg(level=config.jpeg_quality, subsampling=config.jpeg_subsampling)
    with read_slide(entry.path, entry.mpp, config.mpp_if_missing) as slide:
        _refuse_enlarging(slide, config.mpp)
        side_l0 = side_l0_from_st(config.tile_px, config.mpp, slide.mpp_l0)
        overview, mask = find_tissue(slide, config.tissue)
        grid = select_tiles(mask, slide.size_l0, side_l0, config.min_tissue)
        if not len(grid.rc):
            raise SlideError(
                f"no tile is at least {config.min_tissue:.0%} tissue; the overview is {_shares(mask)}",
                where=slide.path,
                fix="look at the slide; if there is tissue, lower --min-tissue or --tissue.min-area-um2, "
                "or switch off --tissue.reject-pen or --tissue.reject-blur",
            )
        attributes = _attributes(entry.slide_id, slide, config, grid, side_l0)
        arrays = {"xy_l0": grid.xy_l0, "rc": grid.rc, "tissue": grid.tissue}
        arrays |= {"overview": overview, "overview_mask": mask}
        tiles = read_tiles(slide, grid.xy_l0, side_l0, config.tile_px)
        jpegs = (jpeg.encode_image(tile) for tile in tiles)
        write_store(path, jpegs, arrays, attributes, jpeg=jpeg, shard_tiles=config.shard_tiles)
    return attributes


def find_tissue(slide: Slide, config: TissueConfig) -> tuple[Image, Mask]:
    """Overview (h, w, 3) of a slide and its mask (h, w). Focus is judged on finer pixels, read only where tissue is."""
    overview = slide.overview(config.mask_um)
    mask = classify(overview, config.mask_um, config)
    if not config.reject_blur:
        return overview, mask
    sharp = np.ones(mask.shape, np.float32)
    height, width = mask.shape
    per_px_l0 = slide.size_l0[0] / width, slide.size_l0[1] / height
    for top in range(0, height, FOCUS_BLOCK):
        for left in range(0, width, FOCUS_BLOCK):
            block = np.s_[top : top + FOCUS_BLOCK, left : left + FOCUS_BLOCK]
            if not (mask[block] == MASK_CLASSES["tissue"]).any():
                continue
            rows, columns = mask[block].shape
            xy_l0 = round(left * per_px_l0[0]), round(top * per_px_l0[1])
            size_l0 = columns * per_px_l0[0], rows * per_px_l0[1]
            sharp[block] = sharpness(slide.read_scaled(xy_l0, size_l0, (columns * FOCUS_FACTOR, rows * FOCUS_FACTOR)))
    return overview, mark_blurred(mask, sharp, config.min_area_um2 / config.mask_um**2)


def read_tiles(
    slide: Slide, xy_l0: npt.NDArray[np.int64], side_l0: float, tile_st: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """The tiles (tile_st, tile_st, 3) whose corners are `xy_l0` (n, 2), one by one; white outside of the slide."""
    for x, y in xy_l0.tolist():
        yield slide.read_scaled((x, y), (side_l0, side_l0), (tile_st, tile_st))


def store_config(config: TileConfig) -> dict[str, Any]:
    """The settings that decide what is in a store, as JSON holds them."""
    return config.model_dump(mode="json", exclude=NOT_IN_STORE)


def _refuse_enlarging(slide: Slide, mpp: float) -> None:
    if slide.mpp_l0 > mpp * MAX_ENLARGING:
        raise SlideError(
            f"the slide has {slide.mpp_l0:.4g} micrometres per pixel, too coarse for tiles at {mpp:g}",
            where=slide.path,
            fix=f"tile at --mpp {slide.mpp_l0:.3g} or coarser, or leave the slide out",
        )


def _shares(mask: Mask) -> str:
    return ", ".join(f"{np.mean(mask == value):.1%} {name}" for name, value in MASK_CLASSES.items())


def _attributes(slide_id: str, slide: Slide, config: TileConfig, grid: TileGrid, side_l0: float) -> StoreAttributes:
    return StoreAttributes(
        slide_id=slide_id,
        source=_source(slide.path),
        vendor=slide.vendor,
        mpp=config.mpp,
        mpp_source=slide.mpp_source,
        mpp_level0=slide.mpp_l0,
        size_l0=slide.size_l0,
        tile_st=config.tile_px,
        grid_shape=grid.shape,
        side_l0=side_l0,
        config=store_config(config),
        versions={name: _version(name) for name in LIBRARIES},
    )


def _source(path: Path) -> Source:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(name=path.name, size=path.stat().st_size, sha256=digest)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
