"""Views of slides: random regions of stores that hold tissue, and crops of them as tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from longvit.config import ViewsConfig
from longvit.pretraining.augment import augment
from longvit.tokens.batch import TokenBatch
from longvit.tokens.read import patchify
from preprocessing.store import PatchStore, open_store

_TRIES = 100


class RegionDataset(Dataset[list[TokenBatch]]):
    """Draw number i -> the views of one random region: two global crops, then the local ones.

    Every draw has a random generator of its own, seeded by its number: what is drawn depends neither on the number of
    workers nor on where a run was interrupted.

    Args:
        stores: One store per slide; draws go round them.
        views: Sides, numbers and changes of the crops.
        patch_px: Side of a token.
        regions_per_slide: Regions of each slide in an epoch.
        seed: Seed of all draws.
    """

    def __init__(
        self, stores: Sequence[Path], views: ViewsConfig, patch_px: int, regions_per_slide: int, seed: int
    ) -> None:
        self.paths, self.views, self.patch_px = list(stores), views, patch_px
        self.regions_per_slide, self.seed = regions_per_slide, seed
        self._open: dict[Path, PatchStore] = {}

    def __len__(self) -> int:
        return len(self.paths) * self.regions_per_slide

    def __getitem__(self, draw: int) -> list[TokenBatch]:
        rng = np.random.default_rng((self.seed, draw))
        path = self.paths[draw % len(self.paths)]
        if path not in self._open:
            self._open[path] = open_store(path)
        store = self._open[path]
        views = self.views
        corner_st = draw_region(store, views.region_px, views.min_tissue, rng)
        region = store.read_region(tuple(corner_st), (views.region_px, views.region_px))
        sides = [views.global_px] * 2 + [views.local_px] * views.local_views
        grid_rc = np.array(store.grid_shape) * store.tile_st // self.patch_px
        return [self._crop(region, grid_rc, side, rng) for side in sides]

    def _crop(self, region: np.ndarray, grid_rc: np.ndarray, side: int, rng: np.random.Generator) -> TokenBatch:
        """One crop at a random place of the token grid.

        Were the crops of a region told their true places, the encoder could match them by place and see nothing.
        """
        x, y = rng.integers(0, len(region) - side + 1, 2)
        image = augment(region[y : y + side, x : x + side], self.views, rng)
        patches = patchify(image[None], self.patch_px)[0]
        rows = len(patches)
        corner_rc = rng.integers(0, np.maximum(grid_rc - rows, 0) + 1)
        rc = corner_rc + np.stack(np.mgrid[0:rows, 0:rows], axis=-1).reshape(-1, 2)
        return TokenBatch(
            x=torch.from_numpy(patches.reshape(1, rows * rows, -1)),
            rc_BL2=torch.from_numpy(rc.astype(np.int64))[None],
            mask_BL=torch.ones(1, rows * rows, dtype=torch.bool),
        )


def draw_region(store: PatchStore, side: int, min_tissue: float, rng: np.random.Generator) -> np.ndarray:
    """Corner (x, y) in store pixels of a random square with at least `min_tissue` of tissue.

    A slide with too little tissue anywhere gives the best of the squares that were tried.
    """
    extent_st = np.array(store.grid_shape[::-1]) * store.tile_st
    best, best_share = np.zeros(2, np.int64), -1.0
    for _ in range(_TRIES):
        centre_st = store.rc[rng.integers(len(store)), ::-1] * store.tile_st + rng.integers(0, store.tile_st, 2)
        corner_st = np.clip(centre_st - side // 2, 0, np.maximum(extent_st - side, 0))
        share = tissue_share(store, corner_st, side)
        if share >= min_tissue:
            return corner_st
        if share > best_share:
            best, best_share = corner_st, share
    return best


def tissue_share(store: PatchStore, corner_st: np.ndarray, side: int) -> float:
    """Share of a square that is tissue, taking each tile's tissue as spread evenly over the tile."""
    tiles_st = store.rc[:, ::-1] * store.tile_st
    overlap = np.minimum(tiles_st + store.tile_st, corner_st + side) - np.maximum(tiles_st, corner_st)
    return float((overlap.clip(0).prod(axis=1) * store.tissue).sum() / side**2)


def collate_views(samples: list[list[TokenBatch]]) -> list[TokenBatch]:
    """Samples of views -> one batch per view."""
    return [TokenBatch.collate(list(view)) for view in zip(*samples, strict=True)]


class DrawSampler(Sampler[int]):
    """Numbers of draws in a random order, new in every epoch, the same for the same seed and epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, a resumed one included."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        yield from (order + self.epoch * self.length).tolist()
