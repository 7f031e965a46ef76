"""Stores of a cohort as a dataset of slides."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from longvit.config import EmbeddingInput, PixelInput
from longvit.tokens.batch import TokenBatch
from longvit.tokens.read import slide_tokens
from preprocessing.errors import StoreError
from preprocessing.store import open_store


class SlideDataset(Dataset[TokenBatch]):
    """Slide i -> all its tokens, as a batch of one.

    Args:
        stores: One store per slide.
        source: What a token is.
    """

    def __init__(self, stores: Sequence[Path], source: PixelInput | EmbeddingInput) -> None:
        self.stores, self.source = list(stores), source

    def __len__(self) -> int:
        return len(self.stores)

    def __getitem__(self, index: int) -> TokenBatch:
        return slide_tokens(open_store(self.stores[index]), self.source)


def find_stores(folder: Path) -> dict[str, Path]:
    """The stores of a folder by slide id, sorted.

    Raises:
        StoreError: There is no such folder, or no store in it.
    """
    stores = {path.name.removesuffix(".zarr"): path for path in sorted(folder.glob("*.zarr")) if path.is_dir()}
    if not stores:
        raise StoreError(
            "there are no stores" if folder.is_dir() else "the folder of stores does not exist",
            where=folder,
            fix="make them with `longvit tile --slides SLIDES --out FOLDER`",
        )
    return stores
