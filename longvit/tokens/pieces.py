"""Tokens of a sequence, read a few tiles at a time, because a million patches take 3 GB.

A sequence consists of the tokens of one store or of several.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from longvit.config import TokenInput
from longvit.tokens.batch import TokenBatch
from longvit.tokens.order import raster_order
from longvit.tokens.source import TokenSource, token_source
from preprocessing.store.store import PatchStore

PIECE_TOKENS = 4096
"""Approximate number of tokens in a piece: 12 MB of pixels, or 50 MB as float32."""


class Pieces(ABC):
    """Tokens of a sequence in pieces, in the stores' order, with the rank of each token in the sequence."""

    source: TokenSource
    """Source of the tokens; for several slides, the source of the first slide."""
    rc_L2: Int64[Tensor, "L 2"]
    """Row and column of each token, in the order of the stores."""
    rank_L: Int64[Tensor, " L"]
    """Rank of each token in the sequence."""

    @abstractmethod
    def ahead(self, threads: int, part: range | None = None) -> Iterator[tuple[Int64[Tensor, " l"], TokenBatch]]:
        """Yield ranks and tokens of all pieces in turn; `threads` threads read ahead while the caller works.

        Args:
            threads: Number of threads that read and decode tiles.
            part: Ranks of the tokens to yield; tiles without such a token are not read. Default: all.

        Raises:
            StoreError: A tile is missing or damaged.
        """

    def rc_in_sequence(self) -> Int64[Tensor, "L 2"]:
        """Return row and column of each token, in the order of the sequence."""
        rc_L2 = torch.empty_like(self.rc_L2)
        rc_L2[self.rank_L] = self.rc_L2
        return rc_L2

    def gathered(self, part: range | None = None) -> TokenBatch:
        """Return all tokens in the order of the sequence, or the tokens of some ranks, as a batch of one.

        Each piece is written to its place as it is read, so that memory holds the tokens only once.

        Raises:
            StoreError: A tile is missing or damaged.
        """
        part = range(len(self.rc_L2)) if part is None else part
        x_LP = np.empty((len(part), self.source.width), self.source.dtype)
        for rank_l, piece in self.ahead(1, part):
            x_LP[rank_l.numpy() - part.start] = piece.x[0].numpy()
        return TokenBatch.of_one(torch.from_numpy(x_LP), self.rc_in_sequence()[part.start : part.stop])


class SlidePieces(Pieces):
    """Tokens of a slide in pieces of neighbouring tiles, with the rank of each token in the slide's sequence.

    Args:
        store: Store of the slide.
        settings: Input of the encoder.
        tokens: Approximate number of tokens in a piece; a piece has at least the tokens of one tile.

    Raises:
        StoreError: The store cannot provide such tokens.
    """

    def __init__(self, store: PatchStore, settings: TokenInput, tokens: int = PIECE_TOKENS) -> None:
        self.store, self.source = store, token_source(store, settings)
        rc = self.source.rc
        self.rc_L2 = torch.from_numpy(rc.astype(np.int64))
        self.rank_L = torch.from_numpy(np.argsort(raster_order(rc)))
        self._tiles = max(1, tokens // self.source.per_tile)

    def read(self, tiles: Int[np.ndarray, " t"]) -> tuple[Int64[Tensor, " l"], TokenBatch]:
        """Return the ranks of the tokens of some tiles, and the tokens as a batch of one.

        Raises:
            StoreError: A tile is missing or damaged.
        """
        x, of_tiles = torch.from_numpy(self.source.read(tiles)), torch.from_numpy(self.source.of_tiles(tiles))
        return self.rank_L[of_tiles], TokenBatch.of_one(x, self.rc_L2[of_tiles])

    def ahead(self, threads: int, part: range | None = None) -> Iterator[tuple[Int64[Tensor, " l"], TokenBatch]]:
        """Yield all pieces in turn, as `Pieces.ahead` does."""
        part = range(len(self.rank_L)) if part is None else part
        wanted_L = (self.rank_L >= part.start) & (self.rank_L < part.stop)
        tiles = np.unique(self.source.tile[wanted_L.numpy()])
        pieces = iter([tiles[i : i + self._tiles] for i in range(0, len(tiles), self._tiles)])
        with ThreadPoolExecutor(threads) as pool:
            reading = deque(pool.submit(self.read, piece) for piece in islice(pieces, 2 * threads))
            while reading:
                rank_l, tokens = reading.popleft().result()
                reading.extend(pool.submit(self.read, piece) for piece in islice(pieces, 1))
                inside_l = (rank_l >= part.start) & (rank_l < part.stop)
                yield (rank_l, tokens) if inside_l.all() else (rank_l[inside_l], tokens.some(inside_l))
