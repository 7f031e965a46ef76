"""Dataset of slides, from the stores of a cohort."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from longvit.config import TokenInput
from longvit.tokens.batch import TokenBatch
from longvit.tokens.read import slide_tokens
from preprocessing.store.store import open_store


class SlideDataset(Dataset[TokenBatch]):
    """Dataset that maps a slide's index to all tokens of the slide, as a batch of one.

    Args:
        stores: One store per slide.
        source: Kind of input token.
    """

    def __init__(self, stores: Sequence[Path | str], source: TokenInput) -> None:
        self.stores, self.source = list(stores), source

    def __len__(self) -> int:
        return len(self.stores)

    def __getitem__(self, index: int) -> TokenBatch:
        return slide_tokens(open_store(self.stores[index]), self.source)
