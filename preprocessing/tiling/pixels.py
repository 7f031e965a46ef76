"""The pixels of a store's tiles as JPEGs: the slide's own bytes where they fit, else decoded, made to size, encoded.

Four ways, from nearly free to slow, and the slide and the wanted resolution decide which:

    kept      the level has the store's resolution, its JPEG tiles the store's size: their bytes, untouched
    cut anew  its JPEG tiles have another size, but their blocks fit: the same coefficients, without loss
    JPEG      its JPEG tiles are decoded at 1/1 to 1/8 within the JPEG, each once for all store tiles that it touches
    any other what OpenSlide or tifffile give
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
"""Tiles that one thread makes at a time: few enough that threads end together, many enough to hide their handling."""
KEPT_BYTES = 1 << 22
"""Bytes of tiles that one thread keeps at a time: handing over a unit takes longer than keeping a tile."""
BLOCK_PX = 4096
"""Side of the largest block of tiles that a thread makes, store pixels: what lies across a border is decoded twice."""
REMEMBERED_BYTES = 1 << 26
"""Memory of a thread for the slide's tiles that it has decoded and will need again."""
BLANK_BYTES = 0.05
"""Bytes for each pixel below which a JPEG may show nothing at all; tissue has 0.3."""
SUBSAMPLED = ("422", "420")
"""Chroma that a slide has less of than luma, and that is stored as it has it."""
AHEAD = 2
"""Units that wait for each thread; what is ready and not yet written stays in memory."""

Pixels = npt.NDArray[np.uint8]
Made = tuple[int, Pieces | SlideError]
"""A tile's index in the grid and its JPEG, or why there is none."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class TilePixels:
    """Makes the JPEGs of the tiles of a grid.

    Args:
        slide: The open slide.
        grid: The tiles; read at `grid.side_l0` level-0 pixels a side.
        tile_st: Side of a tile in store pixels.
        jpeg: The codec of tiles that have to be encoded; where it names no chroma subsampling, it gets the slide's own
            if pixels keep their size, and 4:4:4 if they are resized.
        keep: Keep the slide's own JPEG tiles, or their coefficients, where they fit.
        squeeze: The grid is a canvas that the slide is squeezed to: bicubic, as the official LongViT code does it.

    Attributes:
        kept: Whether they do.
        recut: What cuts them anew, where they do not fit as they are.
        jpeg: The codec, with a subsampling.
    """

    def __init__(
        self, slide: Slide, grid: TileGrid, tile_st: int, jpeg: Jpeg, *, keep: bool = True, squeeze: bool = False
    ) -> None:
        self.slide, self.grid, self.tile_st, self.jpeg, self.squeeze = slide, grid, tile_st, jpeg, squeeze
        self.sampling = slide.sampling(min(grid.side_l0) / tile_st)
        width, height = px_from_l0(grid.side_l0, self.sampling.downsample).tolist()
        self.side = (width, height)
        """Width and height of a tile in decoded pixels; no whole numbers if it has to be resized."""
        self.source = slide.jpeg_levels.get(self.sampling.level)
        exact = np.allclose(self.side, tile_st, rtol=0, atol=1e-6)
        own = self.source if self.sampling.scale == 1 and exact and not squeeze else None  # has the tiles' pixels
        own_grid = own is not None and own.tile == (tile_st, tile_st)
        self.recut = RetiledLevel.of(own, tile_st) if keep and own is not None and not own_grid else None
        self._own = own if keep and (own_grid or self.recut is not None) else None
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
        """Every tile of the grid as its index and JPEG, shard after shard, always in the same order."""
        for unit in in_order(pool, self._make, self._units(shard_tiles), AHEAD * threads):
            yield from unit

    def _units(self, shard_tiles: int) -> list[npt.NDArray[np.intp]]:
        """Tiles that are made together: a block of the grid, or some in a row; never of two shards."""
        index = np.arange(len(self.grid.rc))
        if self._own is not None and self.recut is None:
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
            own = iter((self.recut.tiles if self.recut else self._own.fetch)(self.grid.rc[unit[inside]]))
            tiles = [next(own) if whole else None for whole in inside.tolist()]
            return [(i, self._try(self._keep, i, tile)) for i, tile in zip(unit.tolist(), tiles, strict=True)]
        decode = None
        if self.source is not None and self.block > 1:
            decode = lru_cache(self._remembered(self.source))(self.source.decode)
        return [(i, self._try(self._decoded, i, decode)) for i in unit.tolist()]

    @staticmethod
    def _try(make: Callable[..., Pieces], i: int, more: Fetched | Pieces | Decode | None) -> Pieces | SlideError:
        try:
            return make(i, more)
        except SlideError as error:
            return error

    def _refuse_blank(self, i: int, tile: Pixels) -> None:
        """Where the overview shows tissue, a tile of pure black or white has lost its pixels."""
        if self.grid.tissue[i] > 0.5 and is_blank(tile):
            raise self._undecodable(i, ValueError("pure black or white, where the overview shows tissue"))

    def _undecodable(self, i: int, error: ValueError) -> SlideError:
        x, y = self.grid.xy_l0[i].tolist()
        return undecodable(self.slide.path, self.sampling.level, (x, y), error)

    def _keep(self, i: int, own: Fetched | Pieces) -> Pieces:
        """The slide's own JPEG of a tile; encoded anew where there is none, or part of it is not the slide."""
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
            self._refuse_blank(i, shown)
        return own

    def _decoded(self, i: int, decode: Decode | None = None) -> Pieces:
        """One tile, decoded and encoded by itself."""
        if self.squeeze:
            place = tuple(self.grid.rc[i].tolist())
            return self._encoded(
                i, squeezed_tile(self.slide, self.sampling.level, place, self.grid.shape, self.tile_st)
            )
        left, top = self._starts[i].tolist()
        decode = decode or (self.source and self.source.decode)
        return self._encoded(i, self.slide.read_sampled(self.sampling, (left, top), self._size, decode))

    def _encoded(self, i: int, tile: Pixels) -> Pieces:
        if tile.shape[:2] != (self.tile_st, self.tile_st):
            tile = cv2.resize(tile, (self.tile_st, self.tile_st), interpolation=cv2.INTER_AREA)
        self._refuse_blank(i, tile)
        return (self.jpeg.encode_image(np.ascontiguousarray(tile)),)

    def _block(self) -> int:
        """Side of a block in tiles, whose edges are edges of the slide's own tiles, or the largest where none is.

        The smallest such block where tiles are decoded; the largest where they are cut anew, which is done at once.
        """
        if self.source is None or self.squeeze:
            return 1  # OpenSlide keeps what it decoded lately
        sides, tile = np.arange(1, max(1, BLOCK_PX // self.tile_st) + 1), np.array(self.source.tile)
        whole = np.outer(sides, self.side) / (tile / self.sampling.scale)
        fits = sides[(np.abs(whole - np.rint(whole)) < 1e-9).all(axis=1)]
        return int(fits[-1 if self.recut else 0] if len(fits) else sides[-1])

    def _remembered(self, source: JpegLevel) -> int:
        """Number of the slide's tiles under a row of a block, and one row more: the next row needs that again."""
        tile = np.array(source.tile) // self.sampling.scale
        across, down = np.ceil(np.array(self.side) * (self.block, 1) / tile).astype(int) + 1
        return int(min(across * (down + 1), max(1, REMEMBERED_BYTES // (tile.prod() * 3))))


def in_order(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Results in the order of the items, at most `ahead` of them computed and not yet taken: `pool.map` takes all."""
    waiting, rest = deque(), iter(items)
    try:
        waiting.extend(pool.submit(function, item) for item in islice(rest, ahead))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
    finally:
        for future in waiting:
            future.cancel()
