"""One store -> the tokens of its slide; and the scale at which they show it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from longvit.config import EmbeddingInput, PixelInput
from longvit.tokens.batch import TokenBatch
from longvit.tokens.order import raster_order
from preprocessing.errors import StoreError
from preprocessing.store.store import PatchStore, open_store

MPP_TOLERANCE = 0.05
"""Scanners of one nominal magnification differ by about so much, and tiling keeps a slide's own pixels if it can."""


class Scale(BaseModel):
    """Scale of the stores that something was trained on; the tile encoder is in the encoder's config (`input`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    mpp: float = Field(gt=0, allow_inf_nan=False)
    """Resolution, micrometres per pixel."""
    tile_px: PositiveInt
    """Side of a tile, pixels."""

    @classmethod
    def of(cls, store: PatchStore) -> "Scale":
        """Return the scale of a store.

        Raises:
            StoreError: The store has no resolution or side that a slide can have.
        """
        try:
            return cls(mpp=store.mpp, tile_px=store.tile_st)
        except ValueError as error:
            raise StoreError(
                f"tiles of {store.tile_st} pixels at {store.mpp} um per pixel cannot be",
                where=store.path,
                fix="delete the store and tile its slide again",
            ) from error

    def __str__(self) -> str:
        return f"tiles of {self.tile_px} pixels at {self.mpp:.4g} um per pixel"

    def agrees(self, other: "Scale") -> bool:
        """Return whether the other has tiles of this side, and this resolution within `MPP_TOLERANCE`."""
        return self.tile_px == other.tile_px and abs(other.mpp / self.mpp - 1) <= MPP_TOLERANCE


def slide_tokens(store: PatchStore, source: PixelInput | EmbeddingInput) -> TokenBatch:
    """All tokens of a slide in raster order, as a batch of one.

    Pixels give a token for each patch of each tissue tile; embeddings one for each tile.

    Raises:
        StoreError: The patch side does not divide the tile side, or the embeddings are missing or of another width.
    """
    require_fit(store, source)
    if isinstance(source, PixelInput):
        x, rc = read_patches(store, source.patch_px, np.arange(len(store))), patch_rc(store, source.patch_px)
    else:
        x, rc = store.embeddings(source.encoder).astype(np.float32), store.rc
    order = raster_order(rc)
    return TokenBatch(
        x=torch.from_numpy(x[order])[None],
        rc_BL2=torch.from_numpy(rc[order].astype(np.int64))[None],
        mask_BL=torch.ones(1, len(order), dtype=torch.bool),
    )


def require_fit(store: PatchStore, source: PixelInput | EmbeddingInput) -> None:
    """Refuse a store that cannot give the tokens an encoder reads, before its tiles are read.

    Raises:
        StoreError: The store has no tiles or no pixels, the patch side does not divide the tile side, or the embeddings
            are missing or of another width.
    """
    if not len(store):
        raise StoreError("the slide has no tiles, so no tokens", where=store.path, fix="leave the slide out")
    if isinstance(source, PixelInput):
        store.require("tiles")
        if store.tile_st % source.patch_px:
            raise StoreError(
                f"patches of {source.patch_px} pixels do not divide tiles of {store.tile_st}",
                where=store.path,
                fix="set encoder.input.patch_px to a divisor of the tile side, or tile with another --tile-px",
            )
    elif (width := store.embeddings(source.encoder).shape[1]) != source.dim:
        raise StoreError(
            f"embeddings/{source.encoder} are {width} wide, the encoder expects {source.dim}",
            where=store.path,
            fix=f"set encoder.input.dim to {width}",
        )


def open_stores(
    stores: Mapping[str, Path], source: PixelInput | EmbeddingInput
) -> tuple[dict[str, PatchStore], dict[str, StoreError]]:
    """Open the stores that can give an encoder its tokens; return them, and why the others cannot.

    Raises:
        StoreError: None can be read.
    """
    opened, failed = {}, {}
    for slide_id, path in stores.items():
        try:
            store = open_store(path)
            require_fit(store, source)
            _ = store.rc  # checked when it is read
        except StoreError as error:
            failed[slide_id] = error
        else:
            opened[slide_id] = store
    if not opened:
        raise next(iter(failed.values()))
    return opened, failed


def require_scale(stores: Iterable[PatchStore], scale: Scale | None, trained: object) -> None:
    """Refuse stores of another scale than a model was trained at.

    Args:
        stores: The stores that the model is to read.
        scale: The model's; None if its file does not hold it, which refuses nothing.
        trained: Name or path of the model, for the error.

    Raises:
        StoreError: A store has tiles of another side, or a resolution that differs by more than `MPP_TOLERANCE`.
    """
    for store in stores if scale else ():
        if not scale.agrees(found := Scale.of(store)):
            raise StoreError(
                f"{found}, but {trained} was trained on {scale}",
                where=store.path,
                fix=f"tile the slides with --mpp {scale.mpp:.4g} --tile-px {scale.tile_px}",
            )


def require_one_scale(stores: Sequence[Path]) -> None:
    """Refuse stores of several resolutions or tile sizes: the same patch would show different sizes of tissue.

    Raises:
        StoreError: Two stores differ, in resolution by more than `MPP_TOLERANCE`.
    """
    first, *others = (open_store(path) for path in stores)
    scale = Scale.of(first)
    for store in others:
        if not scale.agrees(found := Scale.of(store)):
            raise StoreError(
                f"{found}, but {first.path.name} has {scale}",
                where=store.path,
                fix="tile all slides of a cohort with the same --mpp and --tile-px",
            )


def patchify(
    images: UInt8[np.ndarray, "n height width 3"], patch_px: int
) -> UInt8[np.ndarray, "n rows columns pixels"]:
    """Cut images into square patches, each flattened channel first, as a convolution's weights are."""
    n, height, width, _ = images.shape
    rows, columns = height // patch_px, width // patch_px
    patches = images.reshape(n, rows, patch_px, columns, patch_px, 3).transpose(0, 1, 3, 5, 2, 4)
    return np.ascontiguousarray(patches).reshape(n, rows, columns, 3 * patch_px**2)


def read_patches(store: PatchStore, patch_px: int, tiles: Int[np.ndarray, " t"]) -> UInt8[np.ndarray, "n pixels"]:
    """The patches of some tiles, tile after tile; those of a tile row by row."""
    patches = patchify(store.read_tiles(tiles), patch_px)
    return patches.reshape(-1, patches.shape[-1])


def patch_rc(store: PatchStore, patch_px: int) -> Int[np.ndarray, "n 2"]:
    """Row and column in the grid of patches of every patch of a store, in the order of `read_patches`."""
    side = store.tile_st // patch_px
    within = np.stack(np.mgrid[0:side, 0:side], axis=-1)  # (side, side, 2)
    return (store.rc[:, None, None, :] * side + within).reshape(-1, 2)
