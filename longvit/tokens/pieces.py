"""One store -> the tokens of its slide, a few tiles at a time: a million patches are 3 GB of pixels."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from longvit.config import EmbeddingInput, PixelInput
from longvit.tokens.batch import TokenBatch
from longvit.tokens.order import raster_order
from longvit.tokens.read import patch_rc, read_patches, require_fit
from preprocessing.store.store import PatchStore

PIECE_TOKENS = 4096
"""Tokens in a piece, about: 12 MB of pixels, which are 50 MB as float32."""


class SlidePieces:
    """The tokens of a slide in pieces of neighbouring tiles, and the rank of each token in the slide's sequence.

    Args:
        store: The slide.
        source: What a token is.
        tokens: Tokens in a piece, about; at least those of one tile.

    Raises:
        StoreError: The store cannot give such tokens.
    """

    def __init__(self, store: PatchStore, source: PixelInput | EmbeddingInput, tokens: int = PIECE_TOKENS) -> None:
        require_fit(store, source)
        self.store, self.source = store, source
        rc = patch_rc(store, source.patch_px) if isinstance(source, PixelInput) else store.rc
        self.rc_L2: Int64[Tensor, "L 2"] = torch.from_numpy(rc.astype(np.int64))
        """Row and column of each token, in the store's order."""
        self.rank_L: Int64[Tensor, " L"] = torch.from_numpy(np.argsort(raster_order(rc)))
        """Place of each token in the sequence."""
        self._per_tile = len(rc) // len(store)
        self._tiles = max(1, tokens // self._per_tile)

    def __len__(self) -> int:
        return -(-len(self.store) // self._tiles)

    def read(self, index: int) -> tuple[Int64[Tensor, " l"], TokenBatch]:
        """One piece: the rank of its tokens, and the tokens as a batch of one.

        Raises:
            StoreError: A tile is missing or damaged.
        """
        tiles = np.arange(len(self.store))[index * self._tiles : (index + 1) * self._tiles]
        if isinstance(self.source, PixelInput):
            x = read_patches(self.store, self.source.patch_px, tiles)
        else:
            x = self.store.embeddings(self.source.encoder)[tiles].astype(np.float32)
        part = slice(tiles[0] * self._per_tile, (tiles[-1] + 1) * self._per_tile)
        mask_BL = torch.ones(1, len(x), dtype=torch.bool)
        return self.rank_L[part], TokenBatch(torch.from_numpy(x)[None], self.rc_L2[part][None], mask_BL)

    def ahead(self, threads: int) -> Iterator[tuple[Int64[Tensor, " l"], TokenBatch]]:
        """All pieces in turn, read and decoded by `threads` while the caller works on those before."""
        with ThreadPoolExecutor(threads) as pool:
            reading = deque(pool.submit(self.read, i) for i in range(min(len(self), 2 * threads)))
            for i in range(len(self)):
                piece = reading.popleft().result()
                if (following := i + 2 * threads) < len(self):
                    reading.append(pool.submit(self.read, following))
                yield piece
