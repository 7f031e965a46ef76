"""Views of slides as tokens: crops of random regions with tissue, or pieces of slides with embedded tiles.

Every draw has its own random generator, seeded by the draw's number. So draws depend neither on the number of workers
nor on the place where a run was interrupted.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import Dataset

from longvit.config import EmbeddingInput, PixelInput, TokenInput, ViewsConfig
from longvit.pretraining.augment import Change
from longvit.pretraining.sampling import SlideSchedule
from longvit.tokens.batch import TokenBatch
from longvit.tokens.order import raster_order
from longvit.tokens.source import patchify
from longvit.tokens.stain import normalised
from preprocessing.frames import st_from_rc
from preprocessing.store.store import PatchStore, open_store

_TRIES = 100


class ViewsDataset(Dataset[list[TokenBatch]], ABC):
    """Dataset that maps a draw's number to the views of one slide: two global views, then the local views.

    Args:
        stores: One store per slide.
        source: Input of the encoder.
        views: Sizes, numbers and augmentations of the views.
        draws_per_slide: Draws in an epoch per slide of the stores; patients share them evenly.
        seed: Seed of all draws.
        patient_of: Patient of each slide id; a slide without an entry is a patient of its own.
        share: Function from the number of a crop's tokens to the tokens to read from the store; default: all. A
            store's features are always read whole, because they are compared with their hash.
    """

    def __init__(
        self,
        stores: Sequence[Path],
        source: TokenInput,
        views: ViewsConfig,
        draws_per_slide: int,
        seed: int,
        patient_of: Mapping[str, str] | None = None,
        *,
        share: Callable[[int], range] = range,
    ) -> None:
        self.turns = SlideSchedule(stores, patient_of or {})
        self.source, self.views, self.seed, self.length = source, views, seed, len(stores) * draws_per_slide
        self.share = share
        self._open: dict[Path, PatchStore] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: int) -> list[TokenBatch]:
        path = self.turns[draw]
        if path not in self._open:
            self._open[path] = open_store(path)
        return self.draw(self._open[path], np.random.default_rng((self.seed, draw)))

    @staticmethod
    def tokens_of_views(source: TokenInput, views: ViewsConfig) -> dict[str, int]:
        """Return the number of tokens of each size of view, by its setting; empty if it depends on the slide."""
        return {}

    @abstractmethod
    def draw(self, store: PatchStore, rng: np.random.Generator) -> list[TokenBatch]:
        """Return the views of one draw, each a batch of one."""


class RegionDataset(ViewsDataset):
    """Dataset of square crops of one random region of a slide, in the store's pixels."""

    source: PixelInput

    @staticmethod
    def tokens_of_views(source: PixelInput, views: ViewsConfig) -> dict[str, int]:
        """Return the number of patches in a global and in a local crop."""
        sides = {"views.global_px": views.global_px} | ({"views.local_px": views.local_px} if views.local_views else {})
        return {name: (side // source.patch_px) ** 2 for name, side in sides.items()}

    def draw(self, store: PatchStore, rng: np.random.Generator) -> list[TokenBatch]:
        """Return crops of one region, whose tiles are decoded once; tokens of other ranks stay black."""
        views = self.views
        corner_st = draw_region(store, views.region_px, views.min_tissue, rng)
        sides = [views.global_px] * 2 + [views.local_px] * views.local_views
        grid_rc = np.array(store.grid_shape) * store.tile_st // self.source.patch_px
        crops = [self._draw_crop(side, grid_rc, rng) for side in sides]
        boxes = np.array([crop.box for crop in crops])
        low, high = boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)
        region = store.read_region(tuple(corner_st + low), tuple(high - low), boxes + corner_st)
        region = normalised(region[None], store, self.source.stain)[0]
        return [crop.tokens(region, low) for crop in crops]

    def _draw_crop(self, side: int, grid_rc: np.ndarray, rng: np.random.Generator) -> "_Crop":
        """Return a crop at a random place of the region and of the token grid."""
        corner = rng.integers(0, self.views.region_px - side + 1, 2)
        change, per_side = Change.draw(self.views, rng), side // self.source.patch_px
        rc = np.stack([*np.mgrid[0:per_side, 0:per_side]], axis=-1).reshape(-1, 2)
        return _Crop(side, corner, change, place(rc, grid_rc, rng), self.source.patch_px, self.share(len(rc)))


@dataclass(frozen=True)
class _Crop:
    """Square crop of a region, of which some tokens are to be read."""

    side: int
    corner: np.ndarray
    """Top-left corner x, y in the region, pixels."""
    change: Change
    rc: np.ndarray
    patch_px: int
    part: range
    """The tokens to read."""

    @property
    def _needed(self) -> tuple[range, range]:
        """Rows of the changed crop that the tokens are in, and rows from which they are computed, pixels."""
        per_row = self.side // self.patch_px
        rows = range(self.part.start // per_row * self.patch_px, -(-self.part.stop // per_row) * self.patch_px)
        return rows, self.change.rows_for(rows, self.side)

    @property
    def box(self) -> np.ndarray:
        """First and end x, y of the pixels to read, in the region."""
        rows, columns = self.change.source(self._needed[1], self.side)
        return self.corner + np.array([[columns.start, rows.start], [columns.stop, rows.stop]])

    def tokens(self, region: np.ndarray, origin: np.ndarray) -> TokenBatch:
        """Return the crop from a part of the region, which begins at `origin`, as uint8: the device scales it."""
        (x0, y0), (x1, y1) = self.box - origin
        rows, computed = self._needed
        image = self.change.apply(region[y0:y1, x0:x1])[rows.start - computed.start : rows.stop - computed.start]
        patches = patchify(image[None], self.patch_px).reshape(-1, 3 * self.patch_px**2)
        first = rows.start // self.patch_px * (self.side // self.patch_px)
        if len(self.part) == len(self.rc):
            return _batch(patches, self.rc)
        x = np.zeros((len(self.rc), patches.shape[1]), np.uint8)
        x[self.part.start : self.part.stop] = patches[self.part.start - first : self.part.stop - first]
        return _batch(x, self.rc)


class PieceDataset(ViewsDataset):
    """Dataset of pieces of a slide with embedded tiles: the tiles around a random tile, some of them dropped."""

    source: EmbeddingInput

    def draw(self, store: PatchStore, rng: np.random.Generator) -> list[TokenBatch]:
        """Return pieces of one slide, each turned and flipped like a crop of pixels."""
        views, embeddings = self.views, store.embeddings(self.source.encoder)
        pieces = []
        for share in [views.global_tiles] * 2 + [views.local_tiles] * views.local_views:
            tiles = draw_piece(store.rc, share, views.drop_tiles, rng)
            rc = place(turn(store.rc[tiles], rng), np.array(store.grid_shape), rng)
            order = raster_order(rc)
            pieces.append(_batch(embeddings[tiles[order]], rc[order]))
        return pieces


VIEWS: dict[str, type[ViewsDataset]] = {"pixels": RegionDataset, "embeddings": PieceDataset}
"""Dataset of views for each kind of an encoder's input."""


def draw_region(store: PatchStore, side: int, min_tissue: float, rng: np.random.Generator) -> np.ndarray:
    """Return the corner (x, y), in store pixels, of a random square with at least `min_tissue` of tissue.

    If a slide has too little tissue everywhere, the best of `_TRIES` squares is returned.
    """
    extent_st = st_from_rc(store.grid_shape, store.tile_st)
    tiles_st = store.xy_st
    best, best_share = np.zeros(2, np.int64), -1.0
    for _ in range(_TRIES):
        centre_st = tiles_st[rng.integers(len(store))] + rng.integers(0, store.tile_st, 2)
        corner_st = np.clip(centre_st - side // 2, 0, np.maximum(extent_st - side, 0))
        share = tissue_share_of_square(store, corner_st, side)
        if share >= min_tissue:
            return corner_st
        if share > best_share:
            best, best_share = corner_st, share
    return best


def tissue_share_of_square(store: PatchStore, corner_st: np.ndarray, side: int) -> float:
    """Return the share of a square that is tissue, if each tile's tissue is spread evenly over the tile."""
    tiles_st = store.xy_st
    overlap = np.minimum(tiles_st + store.tile_st, corner_st + side) - np.maximum(tiles_st, corner_st)
    return float((overlap.clip(0).prod(axis=1) * store.tissue).sum() / side**2)


def draw_piece(
    rc: Int[np.ndarray, "n 2"], share: float, drop: float, rng: np.random.Generator
) -> Int[np.ndarray, " k"]:
    """Return indices of the `share` of all tiles that are nearest to a random tile, minus a random share `drop`.

    Distance is measured along the farther axis, so that a piece is a square if there is tissue all around. At least one
    tile is returned.
    """
    far = np.abs(rc - rc[rng.integers(len(rc))]).max(axis=1)
    near = np.argsort(far, kind="stable")[: max(1, round(share * len(rc)))]
    kept = near[rng.random(len(near)) >= drop]
    return kept if len(kept) else near[:1]


def turn(rc: Int[np.ndarray, "n 2"], rng: np.random.Generator) -> Int[np.ndarray, "n 2"]:
    """Return the same tokens after one of the eight turns and flips of the grid."""
    rc = rc[:, ::-1] if rng.random() < 0.5 else rc
    return rc * rng.choice([-1, 1], 2)


def place(rc: Int[np.ndarray, "n 2"], grid_rc: np.ndarray, rng: np.random.Generator) -> Int[np.ndarray, "n 2"]:
    """Return tokens moved together to a random place of the slide's grid.

    With their true places, two views of a region could be matched by place alone, and the encoder would learn nothing.
    """
    rc = rc - rc.min(axis=0)
    return rc + rng.integers(0, np.maximum(grid_rc - rc.max(axis=0) - 1, 0) + 1)


def collate_views(samples: list[list[TokenBatch]]) -> list[TokenBatch]:
    """Join samples of views into one batch per view."""
    return [TokenBatch.collate(list(view)) for view in zip(*samples, strict=True)]


def _batch(x: np.ndarray, rc: np.ndarray) -> TokenBatch:
    return TokenBatch.of_one(torch.from_numpy(x), torch.from_numpy(rc.astype(np.int64)))
