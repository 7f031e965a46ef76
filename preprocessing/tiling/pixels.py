"""The pixels of a store's tiles as JPEGs: the slide's own bytes if they fit, else decoded, resized and encoded.

There are four ways, from nearly free to slow. The slide and the wanted resolution decide which is used:

    kept      The level has the store's resolution, and its JPEG tiles have the store's size. Their bytes are copied.
    re-tiled  The JPEG tiles have another size, but their blocks fit. The coefficients are copied, without loss.
    JPEG      The JPEG tiles are decoded at 1/1 to 1/8 within the JPEG, each once for all store tiles that overlap it.
    other     OpenSlide or tifffile decode the pixels.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError
from preprocessing.frames import px_from_l0, px_from_rc
from preprocessing.jpeg.codec import Jpeg, Pieces, decode_into, empty_pixels
from preprocessing.jpeg.level import Decode, Fetched, JpegLevel
from preprocessing.jpeg.retile import RetiledLevel
from preprocessing.slides.sanity import is_blank
from preprocessing.slides.slide import Slide, undecodable
from preprocessing.tiling.grid import TileGrid
from preprocessing.tiling.square import squeezed_tile

UNIT_TILES = 32
"""Tiles in a thread's unit of work: few, so that threads end together, but enough to hide the cost of passing units."""
KEPT_BYTES = 1 << 22
"""Bytes in a unit of kept tiles; passing a unit between threads takes longer than copying a tile."""
BLOCK_PX = 4096
"""Side of the largest block of tiles in a unit, store pixels. Slide tiles across a block's border are decoded twice."""
REMEMBERED_BYTES = 1 << 26
"""Memory per thread for decoded tiles of the slide that will be needed again."""
BLANK_BYTES = 0.05
"""Bytes per pixel below which a JPEG may be blank; JPEGs of tissue have 0.3."""
SUBSAMPLED = ("422", "420")
"""Chroma subsamplings of slides that are also used in their stores."""
AHEAD = 2
"""Units that are queued per thread; finished units stay in memory until they are written."""

Pixels = npt.NDArray[np.uint8]
Made = tuple[int, Pieces | SlideError | None]
"""Index of a tile in the grid, and its JPEG or the error that prevented it; None for a part that was not scanned."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class TilePixels:
    """Producer of the JPEGs of a grid's tiles.

    Args:
        slide: Open slide.
        grid: Tiles, each `grid.side_l0` level-0 pixels a side.
        tile_st: Side of a tile, store pixels.
        jpeg: Codec of tiles that have to be encoded. If it has no chroma subsampling, the slide's own is used for
            pixels that are not resized, and 4:4:4 for resized pixels.
        keep: Copy the slide's own JPEG tiles, or their coefficients, if they fit.
        squeeze: Squeeze the slide to the grid, with bicubic interpolation as in the official LongViT code.
        drawn: The tissue was drawn by the user, so it may extend over parts that were not scanned. Without it, pure
            white where the overview shows tissue is an error; pure black always is.

    Attributes:
        kept: True if the slide's own JPEG tiles or coefficients are copied.
        retiled: Level of the slide re-tiled to the store's tiles; None if the slide's tiles fit as they are, or not at
            all.
        jpeg: Codec, with a chroma subsampling.
    """

    def __init__(
        self,
        slide: Slide,
        grid: TileGrid,
        tile_st: int,
        jpeg: Jpeg,
        *,
        keep: bool = True,
        squeeze: bool = False,
        drawn: bool = False,
    ) -> None:
        self.slide, self.grid, self.tile_st, self.jpeg = slide, grid, tile_st, jpeg
        self.squeeze, self.drawn = squeeze, drawn
        self.sampling = slide.sampling(min(grid.side_l0) / tile_st)
        width, height = px_from_l0(grid.side_l0, self.sampling.downsample).tolist()
        self.side = (width, height)
        """Width and height of a tile in decoded pixels; not integers if the tile has to be resized."""
        self.source = slide.jpeg_levels.get(self.sampling.level)
        exact = np.allclose(self.side, tile_st, rtol=0, atol=1e-6)
        own = self.source if self.sampling.scale == 1 and exact and not squeeze else None  # has the tiles' pixels
        own_grid = own is not None and own.tile == (tile_st, tile_st)
        self.retiled = RetiledLevel.of(own, tile_st) if keep and own is not None and not own_grid else None
        self._own = own if keep and (own_grid or self.retiled is not None) else None
        self.kept = self._own is not None
        if self._own is not None:
            self._inside = np.all((grid.rc + 1) * tile_st <= self._own.size[::-1], axis=1)
        if jpeg.subsampling is None:
            chroma = "444" if own is None else own.subsampling()
            self.jpeg = replace(jpeg, subsampling=chroma if chroma in SUBSAMPLED else "444")
            if own is not None and chroma in SUBSAMPLED:
                self.source = replace(own, plain=True)
        self._starts = px_from_rc(grid.rc, self.side)
        self._size = tuple(np.maximum(1, np.rint(self.side)).astype(int).tolist())
        self.block = self._block()

    def jpegs(self, pool: Executor, threads: int, shard_tiles: int) -> Iterator[Made]:
        """Yield index and JPEG of every tile of the grid, shard after shard, always in the same order."""
        for unit in in_order(pool, self._make, self._units(shard_tiles), AHEAD * threads):
            yield from unit

    def _units(self, shard_tiles: int) -> list[npt.NDArray[np.intp]]:
        """Return the units, tiles that are made together: a block of the grid or a run of tiles, within one shard."""
        index = np.arange(len(self.grid.rc))
        if self._own is not None and self.retiled is None:
            lengths = np.zeros(len(index), np.int64)
            lengths[self._inside] = self._own.lengths[tuple(self.grid.rc[self._inside].T)]
            keys = np.stack([index // shard_tiles, np.cumsum(lengths) // KEPT_BYTES], axis=1)
        elif self.block == 1:
            keys = np.stack([index // shard_tiles, index % shard_tiles // UNIT_TILES], axis=1)
        else:
            keys = np.column_stack([index // shard_tiles, self.grid.rc // self.block])
        _, unit_of, sizes = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        return np.split(np.argsort(unit_of.ravel(), kind="stable"), np.cumsum(sizes)[:-1])

    def _make(self, unit: npt.NDArray[np.intp]) -> list[Made]:
        if self._own is not None:
            inside = self._inside[unit]
            own = iter((self.retiled.tiles if self.retiled else self._own.fetch)(self.grid.rc[unit[inside]]))
            tiles = [next(own) if whole else None for whole in inside.tolist()]
            return [(i, self._try(self._keep, i, tile)) for i, tile in zip(unit.tolist(), tiles, strict=True)]
        decode = None
        if self.source is not None and self.block > 1:
            decode = lru_cache(self._remembered(self.source))(self.source.decode)
        return [(i, self._try(self._decoded, i, decode)) for i in unit.tolist()]

    @staticmethod
    def _try(
        make: Callable[..., Pieces | None], i: int, more: Fetched | Pieces | Decode | None
    ) -> Pieces | SlideError | None:
        try:
            return make(i, more)
        except SlideError as error:
            return error

    def _is_scanned(self, i: int, tile: Pixels) -> bool:
        """Return False for a tile of pure white where tissue was drawn.

        Raises:
            SlideError: The overview shows tissue there, so the tile's pixels were lost.
        """
        if self.grid.tissue[i] <= 0.5 or not is_blank(tile):
            return True
        if self.drawn and tile.flat[0]:
            return False
        raise self._undecodable(i, ValueError("pure black or white, where the overview shows tissue"))

    def _undecodable(self, i: int, error: ValueError) -> SlideError:
        x, y = self.grid.xy_l0[i].tolist()
        return undecodable(self.slide.path, self.sampling.level, (x, y), error)

    def _keep(self, i: int, own: Fetched | Pieces) -> Pieces | None:
        """Return the slide's own JPEG of a tile, or encode the tile if it has none or extends beyond the slide."""
        if own is None:
            return self._decoded(i)
        if isinstance(own, ValueError):
            raise self._undecodable(i, own) from own
        if sum(map(len, own)) < self.tile_st**2 * BLANK_BYTES:
            shown = empty_pixels(self.tile_st, self.tile_st, 3)
            try:
                decode_into(b"".join(own), shown)
            except ValueError as error:
                raise self._undecodable(i, error) from error
            return own if self._is_scanned(i, shown) else None
        return own

    def _decoded(self, i: int, decode: Decode | None = None) -> Pieces | None:
        """Decode a tile and return its new JPEG."""
        if self.squeeze:
            place = tuple(self.grid.rc[i].tolist())
            return self._encoded(
                i, squeezed_tile(self.slide, self.sampling.level, place, self.grid.shape, self.tile_st)
            )
        left, top = self._starts[i].tolist()
        decode = decode or (self.source and self.source.decode)
        return self._encoded(i, self.slide.read_sampled(self.sampling, (left, top), self._size, decode))

    def _encoded(self, i: int, tile: Pixels) -> Pieces | None:
        if tile.shape[:2] != (self.tile_st, self.tile_st):
            tile = cv2.resize(tile, (self.tile_st, self.tile_st), interpolation=cv2.INTER_AREA)
        return (self.jpeg.encode_image(np.ascontiguousarray(tile)),) if self._is_scanned(i, tile) else None

    def _block(self) -> int:
        """Return the side of a block, in tiles, at which the block's edges are edges of the slide's own tiles.

        If tiles are decoded, this is the smallest such side. If tiles are re-tiled, it is the largest, because a block
        is re-tiled at once. If there is no such side, it is the largest possible side.
        """
        if self.source is None or self.squeeze:
            return 1  # OpenSlide has its own cache of decoded tiles
        sides, tile = np.arange(1, max(1, BLOCK_PX // self.tile_st) + 1), np.array(self.source.tile)
        whole = np.outer(sides, self.side) / (tile / self.sampling.scale)
        fits = sides[(np.abs(whole - np.rint(whole)) < 1e-9).all(axis=1)]
        return int(fits[-1 if self.retiled else 0] if len(fits) else sides[-1])

    def _remembered(self, source: JpegLevel) -> int:
        """Return how many slide tiles to cache: those under a row of a block, and one more row for the next row."""
        tile = np.array(source.tile) // self.sampling.scale
        across, down = np.ceil(np.array(self.side) * (self.block, 1) / tile).astype(int) + 1
        return int(min(across * (down + 1), max(1, REMEMBERED_BYTES // (tile.prod() * 3))))


def in_order(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield the results in the order of the items, with at most `ahead` of them computed in advance.

    `pool.map` would compute all of them in advance.
    """
    waiting, rest = deque(), iter(items)
    try:
        waiting.extend(pool.submit(function, item) for item in islice(rest, ahead))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
    finally:
        for future in waiting:
            future.cancel()
