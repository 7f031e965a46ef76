"""Token sources: tokens of a store, as patches of its pixels or as embeddings of its tiles."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from longvit.config import EmbeddingInput, PixelInput, TokenInput
from longvit.tokens.stain import normalised
from preprocessing.errors import StoreError
from preprocessing.store.patch_tissue import patch_tissue
from preprocessing.store.store import PatchStore


@dataclass(frozen=True)
class TokenSource(ABC):
    """Source of the tokens of one store; `token_source` chooses the kind.

    Args:
        store: The store.
        settings: Input of an encoder.
    """

    store: PatchStore
    settings: TokenInput
    dtype: ClassVar[type[np.generic]]

    def __post_init__(self) -> None:
        if not len(self.store):
            raise StoreError("the slide has no tiles, so no tokens", where=self.store.path, fix="leave the slide out")
        self.require_fit()

    @abstractmethod
    def require_fit(self) -> None:
        """Check that the store can provide such tokens, before a tile is read.

        Raises:
            StoreError: The store cannot provide such tokens.
        """

    @property
    def width(self) -> int:
        """Numbers per token."""
        return self.settings.width

    @property
    def per_side(self) -> int:
        """Tokens along the side of a tile."""
        return 1

    @property
    def per_tile(self) -> int:
        """Most tokens of a tile."""
        return self.per_side**2

    @cached_property
    def kept(self) -> Bool[np.ndarray, "t per_tile"]:
        """True for the places of each tile, row by row, that have a token; every tile has at least one."""
        return np.ones((len(self.store), self.per_tile), bool)

    def __len__(self) -> int:
        return int(self.kept.sum())

    @property
    def rc(self) -> Int[np.ndarray, "n 2"]:
        """Row and column of every token in the grid of tokens, tile after tile, and row by row within a tile."""
        within = np.stack([*np.mgrid[0 : self.per_side, 0 : self.per_side]], axis=-1).reshape(-1, 2)
        return (self.store.rc[:, None, :] * self.per_side + within)[self.kept]

    @cached_property
    def tile(self) -> Int[np.ndarray, " n"]:
        """Index of every token's tile, ascending."""
        return np.repeat(np.arange(len(self.kept)), self.kept.sum(axis=1))

    def of_tiles(self, tiles: Int[np.ndarray, " t"]) -> Int[np.ndarray, " k"]:
        """Return the indices of the tokens that `read` returns for these tiles."""
        counts = self.kept[tiles].sum(axis=1)
        before = np.searchsorted(self.tile, tiles) - counts.cumsum() + counts
        return np.arange(int(counts.sum())) + before.repeat(counts)

    @abstractmethod
    def read(self, tiles: Int[np.ndarray, " t"]) -> UInt8[np.ndarray, "n P"] | Float[np.ndarray, "n E"]:
        """Return the tokens of the tiles with these indices, in the order of `rc`.

        Raises:
            StoreError: A tile is missing or damaged.
        """


class PixelSource(TokenSource):
    """Source of square patches of a tile's pixels, uint8."""

    settings: PixelInput
    dtype = np.uint8

    def require_fit(self) -> None:
        """Check that the store has pixels, that patches divide tiles, and that there is a mask if tissue is asked for.

        Raises:
            StoreError: The store has no pixels or no mask, or the patch side does not divide the tile side.
        """
        self.store.require("tiles")
        if self.settings.min_tissue:
            self.store.require("overview_mask")
        if self.store.tile_st % self.settings.patch_px:
            raise StoreError(
                f"patches of {self.settings.patch_px} pixels do not divide tiles of {self.store.tile_st}",
                where=self.store.path,
                fix="set encoder.input.patch_px to a divisor of the tile side, or tile with another --tile-px",
            )

    @property
    def per_side(self) -> int:
        """Patches along the side of a tile."""
        return self.store.tile_st // self.settings.patch_px

    @cached_property
    def kept(self) -> Bool[np.ndarray, "t per_tile"]:
        """True for patches with enough tissue, and for the patch of each tile with the most tissue."""
        if not self.settings.min_tissue:
            return super().kept
        share = patch_tissue(self.store, self.per_side)
        kept = share >= self.settings.min_tissue
        kept[np.arange(len(kept)), share.argmax(axis=1)] = True
        return kept

    def read(self, tiles: Int[np.ndarray, " t"]) -> UInt8[np.ndarray, "n P"]:
        """Return the patches of the tiles with these indices, in normalised colours if the settings ask for it."""
        images = normalised(self.store.read_tiles(tiles), self.store, self.settings.stain)
        patches = patchify(images, self.settings.patch_px).reshape(-1, self.width)
        return patches if self.kept.all() else patches[self.kept[tiles].ravel()]


class EmbeddingSource(TokenSource):
    """Source of tile embeddings, float32, one token per tile."""

    settings: EmbeddingInput
    dtype = np.float32

    def require_fit(self) -> None:
        """Check that the store has embeddings of this width.

        Raises:
            StoreError: The embeddings are missing or of another width.
        """
        width = self.store.embeddings(self.settings.encoder).shape[1]
        if width != self.width:
            raise StoreError(
                f"embeddings/{self.settings.encoder} are {width} wide, but the encoder expects {self.width}",
                where=self.store.path,
                fix=f"set encoder.input.dim to {width}",
            )

    def read(self, tiles: Int[np.ndarray, " t"]) -> Float[np.ndarray, "n E"]:
        """Return the embeddings of the tiles with these indices."""
        return self.store.embeddings(self.settings.encoder)[tiles].astype(np.float32)


_SOURCES: dict[str, type[TokenSource]] = {"pixels": PixelSource, "embeddings": EmbeddingSource}


def token_source(store: PatchStore, settings: TokenInput) -> TokenSource:
    """Return the token source of a store for an encoder's kind of input.

    Raises:
        StoreError: The store cannot provide such tokens.
    """
    return _SOURCES[settings.kind](store, settings)


def patchify(
    images: UInt8[np.ndarray, "n height width 3"], patch_px: int
) -> UInt8[np.ndarray, "n rows columns pixels"]:
    """Cut images into square patches, each flattened channel first, like a convolution's weights."""
    n, height, width, _ = images.shape
    rows, columns = height // patch_px, width // patch_px
    patches = images.reshape(n, rows, patch_px, columns, patch_px, 3).transpose(0, 1, 3, 5, 2, 4)
    return np.ascontiguousarray(patches).reshape(n, rows, columns, 3 * patch_px**2)
