"""Reading of a slide's tokens from its store, and the scale at which the tokens show the slide."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from longvit.config import TokenInput
from longvit.tokens.batch import TokenBatch
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.source import token_source
from preprocessing.errors import PipelineError, StoreError
from preprocessing.store.arrays import remedy
from preprocessing.store.store import PatchStore, open_store

MPP_TOLERANCE = 0.05
"""Relative difference of resolutions that counts as equal.

Scanners of one nominal magnification differ by about this much, and tiling keeps a slide's own pixels if it can.
"""


class StoreScale(BaseModel):
    """Scale of the stores that a model was trained on. The tile encoder is in the encoder's config (`input`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    mpp: float = Field(gt=0, allow_inf_nan=False)
    """Resolution, micrometres per pixel."""
    tile_px: PositiveInt
    """Side of a tile, pixels."""

    @classmethod
    def of(cls, store: PatchStore) -> "StoreScale":
        """Return the scale of a store.

        Raises:
            StoreError: The store has a resolution or a tile side that no slide can have.
        """
        try:
            return cls(mpp=store.mpp, tile_px=store.tile_st)
        except ValueError as error:
            raise StoreError(
                f"tiles of {store.tile_st} pixels at {store.mpp} um per pixel cannot be",
                where=store.path,
                fix=remedy(store.path, "delete the store and tile its slide again"),
            ) from error

    def __str__(self) -> str:
        return f"tiles of {self.tile_px} pixels at {self.mpp:.4g} um per pixel"

    def require(self, stores: Iterable[PatchStore], owner: str, fix: str) -> None:
        """Refuse stores of another scale; `owner` and `fix`, for stores with pixels, are parts of the message.

        Raises:
            StoreError: A store has tiles of another side, or a resolution that differs by more than `MPP_TOLERANCE`.
        """
        for store in stores:
            found = StoreScale.of(store)
            if found.tile_px != self.tile_px or abs(found.mpp / self.mpp - 1) > MPP_TOLERANCE:
                raise StoreError(f"{found}, but {owner} {self}", where=store.path, fix=remedy(store.path, fix))


def slide_tokens(store: PatchStore, settings: TokenInput) -> TokenBatch:
    """Return all tokens of a slide in raster order, as a batch of one.

    With pixel input each patch of a tissue tile is a token; with embeddings each tile is a token.

    Raises:
        StoreError: The store cannot provide such tokens, or a tile is missing or damaged.
    """
    return SlidePieces(store, settings).gathered()


def open_stores(
    stores: Mapping[str, Path], settings: TokenInput
) -> tuple[dict[str, PatchStore], dict[str, PipelineError]]:
    """Open the stores that can provide an encoder's tokens; return these stores, and the error of every other store.

    Raises:
        StoreError: None of the stores can provide the tokens.
    """
    opened, failed = {}, {}
    for slide_id, path in stores.items():
        try:
            store = open_store(path)
            token_source(store, settings)  # refuses stores that do not fit
            _ = store.rc  # is checked when it is read
        except StoreError as error:
            failed[slide_id] = error
        else:
            opened[slide_id] = store
    if not opened:
        raise next(iter(failed.values()))
    return opened, failed


def require_scale(stores: Iterable[PatchStore], scale: StoreScale | None, trained: object) -> None:
    """Refuse stores of another scale than the model's training stores.

    Args:
        stores: The stores that the model is to read.
        scale: Scale of the model; None if its file does not contain the scale, in which case no store is refused.
        trained: Name or path of the model, for the error message.

    Raises:
        StoreError: A store has tiles of another side, or a resolution that differs by more than `MPP_TOLERANCE`.
    """
    if scale is not None:
        fix = f"tile the slides with --mpp {scale.mpp:.4g} --tile-px {scale.tile_px}"
        scale.require(stores, f"{trained} was trained on", fix)


def require_one_scale(stores: Sequence[Path]) -> None:
    """Refuse stores of several resolutions or tile sizes, in which the same patch would show different tissue sizes.

    Raises:
        StoreError: Two stores differ in tile side, or in resolution by more than `MPP_TOLERANCE`.
    """
    first, *others = (open_store(path) for path in stores)
    fix = "tile all slides of a cohort with the same --mpp and --tile-px"
    StoreScale.of(first).require(others, f"{first.path.name} has", fix)
