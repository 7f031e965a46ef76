"""Tiling of one slide into its store: find the tissue, choose the tiles, read and encode them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import openslide
import simplejpeg
import tifffile
import zarr

from preprocessing.config import TileConfig
from preprocessing.errors import SlideError
from preprocessing.frames import grid_shape, side_l0_from_st
from preprocessing.jpeg.codec import Jpeg, Pieces
from preprocessing.jpeg.level import SCALES
from preprocessing.slides.slide import Slide, read_slide
from preprocessing.slides.source import describe
from preprocessing.store.schema import MASK_CLASSES, MAX_TILES, ArrayName, StoreAttributes
from preprocessing.store.writer import finish_store, write_arrays
from preprocessing.tiling.grid import select_tiles
from preprocessing.tiling.manifest import SlideEntry
from preprocessing.tiling.pixels import Made, TilePixels
from preprocessing.tiling.report import save_picture
from preprocessing.tiling.warnings import review
from preprocessing.tissue.detect import find_tissue
from preprocessing.tissue.light import ACCEPT, refuse_dark_field
from preprocessing.tissue.masks import find_mask

MAX_ENLARGING = 1.25
"""Largest ratio of a slide's micrometres per pixel to the store's; 20x scanners range from 0.46 to 0.55."""
NOT_IN_STORE = {
    **dict.fromkeys(("slides", "slides_folder", "id_from", "check_md5", "out", "workers", "overwrite"), True),
    **dict.fromkeys(("tolerate_bad_tiles", "export_masks", "accept"), True),
}
"""Settings that do not change the contents of a store. The path of a mask does not either: its hash is stored."""
VERSIONS = {
    "longvit": version("longvit"),
    "libopenslide": openslide.__library_version__,
    **{module.__name__: module.__version__ for module in (cv2, imagecodecs, np, openslide, simplejpeg, tifffile, zarr)},
}
"""Versions of the programs that a store's pixels depend on; stored with them."""


class _BadTilesError(Exception):
    """Errors of tiles that could not be made, by index; raised after all other tiles were made."""

    def __init__(self, errors: dict[int, SlideError]) -> None:
        super().__init__(errors)
        self.errors = errors


def tile_slide(entry: SlideEntry, folder: Path, config: TileConfig, threads: int = 1) -> StoreAttributes:
    """Write the store of a slide and return its attributes.

    Args:
        entry: The slide.
        folder: Folder of the new store, in which no other process writes.
        config: Settings.
        threads: Number of threads.

    Raises:
        SlideError: The slide cannot be read, does not state its resolution, is too coarse, has no tissue, or has more
            damaged tiles than `tolerate_bad_tiles`.
    """
    jpeg = Jpeg(level=config.jpeg_quality, subsampling=config.jpeg_subsampling)
    with (
        read_slide(entry.path, entry.mpp, config.mpp_if_missing, config.mpp_from_objective) as slide,
        ThreadPoolExecutor(threads) as pool,
    ):
        mpp, side_l0 = geometry(slide, config)
        source = pool.submit(describe, slide.files)  # now, while the other threads wait for the overview
        with slide.forgiving(config.tolerate_bad_tiles) as unseen:
            overview, mask = find_tissue(slide, config.tissue, entry.slide_id, pool.map)
        if ACCEPT not in config.accept:
            refuse_dark_field(slide.path, overview)
        drawn = pool.submit(save_picture, config.out, entry.slide_id, overview, mask)  # also of slides without tissue
        grid, bad = select_tiles(mask, slide.size_l0, side_l0, config.min_tissue), {}
        while len(grid.rc):
            pixels = TilePixels(slide, grid, config.tile_px, jpeg, keep=config.passthrough, squeeze=bool(config.canvas))
            tiles = _good(pixels.jpegs(pool, threads, config.shard_tiles), config.tolerate_bad_tiles)
            arrays: dict[ArrayName, np.ndarray] = {"xy_l0": grid.xy_l0, "rc": grid.rc, "tissue": grid.tissue}
            arrays |= {"piece": grid.piece, "overview": overview, "overview_mask": mask}
            warnings = pool.submit(review, overview, mask, len(grid.rc), slide.mpp_source, list(bad.values()), unseen)
            try:
                write_arrays(folder, tiles, arrays, config.tile_px, jpeg=pixels.jpeg, shard_tiles=config.shard_tiles)
            except _BadTilesError as found:  # write again without the bad tiles
                bad, grid = found.errors, grid.without(list(found.errors))
                continue
            drawn.result()
            attributes = StoreAttributes(
                slide_id=entry.slide_id,
                source=source.result(),
                mask=config.tissue.masks and describe([find_mask(config.tissue.masks, entry.slide_id)]),
                mpp=mpp,
                grid_shape=grid.shape,
                side_l0=grid.side_l0,
                config=store_config(config),
                passthrough=pixels.kept,
                warnings=[*slide.contradictions, *warnings.result()],
                **_facts(slide, config),
            )
            finish_store(folder, attributes)
            return attributes
    shares = ", ".join(f"{np.mean(mask == value):.1%} {name}" for name, value in MASK_CLASSES.items())
    raise SlideError(
        f"no tile is at least {config.min_tissue:.0%} tissue; the overview is {shares}",
        where=slide.path,
        fix="view the slide; if there is tissue, lower --min-tissue or --tissue.min-area-um2, "
        "or switch off --tissue.reject-pen or --tissue.reject-blur",
    )


def geometry(slide: Slide, config: TileConfig) -> tuple[float, tuple[float, float]]:
    """Return the resolution of a slide's store (micrometres per pixel), and width and height of its tiles (level 0).

    The resolution of a level, or of its half, quarter or eighth, is used unchanged if it is close enough to the wanted
    one. The resolution of a canvas is the geometric mean of its horizontal and vertical resolutions.

    Raises:
        SlideError: The slide is too coarse, or would have too many tiles.
    """
    if config.canvas is not None:
        width, height = (size * config.tile_px / config.canvas for size in slide.size_l0)
        _refuse_grid(slide, (width, height))
        return slide.mpp_l0 * (width * height) ** 0.5 / config.tile_px, (width, height)
    if slide.mpp_l0 > config.mpp * MAX_ENLARGING:
        raise SlideError(
            f"the slide has {slide.mpp_l0:.4g} micrometres per pixel, too coarse for tiles at {config.mpp:g}",
            where=slide.path,
            fix=f"tile at --mpp {slide.mpp_l0:.3g} or coarser, or leave the slide out",
        )
    owns = (slide.mpp_l0 * scale * downsample for scale in SCALES for downsample in slide.downsamples)
    near = (own for own in owns if abs(own / config.mpp - 1) <= config.mpp_tolerance)
    mpp = next(near, config.mpp)
    side = side_l0_from_st(config.tile_px, mpp, slide.mpp_l0)
    _refuse_grid(slide, (side, side))
    return mpp, (side, side)


def _refuse_grid(slide: Slide, side_l0: tuple[float, float]) -> None:
    rows, columns = grid_shape(slide.size_l0, side_l0)
    if rows * columns > MAX_TILES:
        raise SlideError(
            f"the slide would have {rows} x {columns} tiles, more than {MAX_TILES}",
            where=slide.path,
            fix="tile at a coarser --mpp, or with a larger --tile-px",
        )


def _good(made: Iterable[Made], tolerated: int) -> Iterator[tuple[int, Pieces]]:
    """Yield the tiles that could be made; raise at the end if some could not, and at once if more than `tolerated`."""
    bad = {}
    for i, result in made:
        if not isinstance(result, SlideError):
            yield i, result
            continue
        bad[i] = result
        if len(bad) > tolerated:
            raise result
    if bad:
        raise _BadTilesError(bad)


def store_config(config: TileConfig) -> dict[str, Any]:
    """Return the settings that determine the contents of a store, as JSON values."""
    return config.model_dump(mode="json", exclude=NOT_IN_STORE | {"tissue": {"masks"}})


def _facts(slide: Slide, config: TileConfig) -> dict[str, Any]:
    """Return the attributes of a store that are facts of the slide, or are the same for all slides of a run."""
    return {
        "vendor": slide.vendor,
        "mpp_source": slide.mpp_source,
        "mpp_level0": slide.mpp_l0,
        "size_l0": slide.size_l0,
        "bounds_l0": slide.bounds_l0,
        "tile_st": config.tile_px,
        "versions": VERSIONS,
    }
