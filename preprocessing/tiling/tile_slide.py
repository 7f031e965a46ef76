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
from preprocessing.frames import grid_shape, part_px, side_l0_from_st
from preprocessing.jpeg.codec import Jpeg, Pieces
from preprocessing.jpeg.level import SCALES
from preprocessing.slides.slide import Slide, read_slide
from preprocessing.slides.source import describe
from preprocessing.store.schema import MASK_CLASSES, MAX_TILES, ArrayName, StoreAttributes
from preprocessing.store.writer import finish_store, write_arrays
from preprocessing.tiling.grid import TileGrid, select_tiles
from preprocessing.tiling.manifest import SlideEntry
from preprocessing.tiling.pixels import Made, TilePixels
from preprocessing.tiling.report import save_picture
from preprocessing.tiling.warnings import review
from preprocessing.tissue.detect import find_tissue
from preprocessing.tissue.light import ACCEPT, refuse_dark_field, refuse_false_colours
from preprocessing.tissue.masks import find_mask
from preprocessing.tissue.pieces import Labels, label_pieces

MAX_ENLARGING = 1.25
"""Largest ratio of a slide's micrometres per pixel to the store's; 20x scanners range from 0.46 to 0.55."""
NOT_IN_STORE = {
    **dict.fromkeys(("slides", "slides_folder", "id_from", "check_md5", "out", "workers", "overwrite"), True),
    **dict.fromkeys(("tolerate_bad_tiles", "export_masks", "accept"), True),
}
"""Settings that do not change the contents of a store. The path of a mask does not either: its hash is stored."""
GEOJSON_FRAME = "geojson_frame"
"""Key in a store's settings of the frame in which its mask was read; only if the slide has empty borders."""
VERSIONS = {
    "longvit": version("longvit"),
    "libopenslide": openslide.__library_version__,
    **{module.__name__: module.__version__ for module in (cv2, imagecodecs, np, openslide, simplejpeg, tifffile, zarr)},
}
"""Versions of the programs that a store's pixels depend on; stored with them."""


class _BadTilesError(Exception):
    """Tiles that could not be made, with their errors, and tiles of drawn tissue without pixels; raised at the end."""

    def __init__(self, errors: dict[int, SlideError], blank: list[int]) -> None:
        super().__init__(errors, blank)
        self.errors, self.blank = errors, blank


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
    own = config.tissue.masks and find_mask(config.tissue.masks, entry.slide_id)
    ways = {"keep": config.passthrough, "squeeze": bool(config.canvas), "drawn": own is not None}
    given = entry.mpp, config.mpp_if_missing, config.mpp_from_objective
    with read_slide(entry.path, *given) as slide, ThreadPoolExecutor(threads) as pool:
        mpp, side_l0 = geometry(slide, config)
        source = pool.submit(describe, slide.files)  # now, while the other threads wait for the overview
        with slide.forgiving(config.tolerate_bad_tiles) as unseen:
            overview, mask = find_tissue(slide, config.tissue, entry.slide_id, pool.map)
        part = part_px(slide.bounds_l0, slide.size_l0, mask.shape)
        refuse_false_colours(slide.path, overview[part])
        if ACCEPT not in config.accept:
            refuse_dark_field(slide.path, overview[part])
        labels = _labels(slide, mask, config)
        shown = overview[part], mask[part], None if labels is None else labels[part]
        picture = pool.submit(save_picture, config.out, entry.slide_id, *shown)
        grid = select_tiles(mask, slide.size_l0, side_l0, config.min_tissue, slide.bounds_l0)
        grid, bad, blank = grid.with_pieces(labels, slide.size_l0), {}, 0
        while len(grid.rc):
            pixels = TilePixels(slide, grid, config.tile_px, jpeg, **ways)
            tiles = _good(pixels.jpegs(pool, threads, config.shard_tiles), config.tolerate_bad_tiles)
            arrays: dict[ArrayName, np.ndarray] = {"xy_l0": grid.xy_l0, "rc": grid.rc, "tissue": grid.tissue}
            arrays |= {"piece": grid.piece, "overview": overview, "overview_mask": mask}
            counts = {"n_tiles": len(grid.rc), "bad_tiles": list(bad.values()), "unseen": unseen, "blank": blank}
            warnings = pool.submit(review, overview[part], mask[part], mpp_source=slide.mpp_source, **counts)
            try:
                write_arrays(folder, tiles, arrays, config.tile_px, jpeg=pixels.jpeg, shard_tiles=config.shard_tiles)
            except _BadTilesError as found:  # write again without the bad tiles
                _refuse_empty(own, found.blank, grid)
                bad, blank, grid = found.errors, len(found.blank), grid.without([*found.errors, *found.blank])
                continue
            picture.result()
            attributes = StoreAttributes(
                slide_id=entry.slide_id,
                source=source.result(),
                mask=own and describe([own]),
                mpp=mpp,
                grid_shape=grid.shape,
                side_l0=grid.side_l0,
                config=store_config(config) | _frame(own, slide, config),
                passthrough=pixels.kept,
                warnings=[*slide.contradictions, *warnings.result()],
                **_facts(slide, config),
            )
            finish_store(folder, attributes)
            return attributes
    raise _no_tiles(slide, mask[part], config)


def _labels(slide: Slide, mask: np.ndarray, config: TileConfig) -> Labels | None:
    """Return the pieces of a mask (h, w); None unless they are asked for."""
    um_per_px = slide.mpp_l0 * slide.size_l0[0] / mask.shape[1]
    return label_pieces(mask, um_per_px, config.piece_gap_um) if config.pieces else None


def _no_tiles(slide: Slide, mask: np.ndarray, config: TileConfig) -> SlideError:
    shares = ", ".join(f"{np.mean(mask == value):.1%} {name}" for name, value in MASK_CLASSES.items())
    return SlideError(
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
    bad, blank = {}, []
    for i, result in made:
        if result is None:
            blank.append(i)
        elif not isinstance(result, SlideError):
            yield i, result
        else:
            bad[i] = result
            if len(bad) > tolerated:
                raise result
    if bad or blank:
        raise _BadTilesError(bad, blank)


def _refuse_empty(mask: Path | None, blank: list[int], grid: TileGrid) -> None:
    """Refuse a drawn mask if most of its tiles have no pixels."""
    if len(blank) > len(grid.rc) / 2:
        raise SlideError(
            f"{len(blank)} of {len(grid.rc)} tiles of the mask are pure white: nothing was scanned there",
            where=mask,
            fix="is it the mask of this slide, in level-0 pixels of the frame that --tissue.geojson-frame names?",
        )


def _frame(mask: Path | None, slide: Slide, config: TileConfig) -> dict[str, Any]:
    """Return the frame in which a mask was read, if frames of the slide differ."""
    drawn = mask is not None and mask.suffix == ".geojson" and slide.bounds_l0 is not None
    return {GEOJSON_FRAME: config.tissue.geojson_frame} if drawn else {}


def store_config(config: TileConfig) -> dict[str, Any]:
    """Return the settings that determine the contents of a store, as JSON values."""
    return config.model_dump(mode="json", exclude=NOT_IN_STORE | {"tissue": {"masks", "geojson_frame"}})


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
