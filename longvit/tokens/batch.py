"""Input of an encoder: the tokens of a batch of slides, their places, and a mask of real tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of B slides, each row padded at its end to the longest.

    >>> slide = TokenBatch(torch.zeros(1, 5, 8), torch.zeros(1, 5, 2, dtype=torch.int64), torch.ones(1, 5).bool())
    >>> TokenBatch.collate([slide, slide]).lengths.tolist()
    [5, 5]
    """

    x: UInt8[Tensor, "B L P"] | Float[Tensor, "B L E"]
    """Pixels of each patch, flattened as (channel, row, column), or the embedding of each tile."""
    rc_BL2: Int64[Tensor, "B L 2"]
    """Row and column of each token in its slide's token grid."""
    mask_BL: Bool[Tensor, "B L"]
    """True for a real token, False for padding."""

    @staticmethod
    def of_one(x_LP: Tensor, rc_L2: Int64[Tensor, "L 2"]) -> "TokenBatch":
        """Return the tokens of one slide, all of them real, as a batch that shares their memory."""
        return TokenBatch(x_LP[None], rc_L2[None], torch.ones(1, len(rc_L2), dtype=torch.bool))

    @property
    def lengths(self) -> Int64[Tensor, " B"]:
        """Number of real tokens of each slide."""
        return self.mask_BL.sum(1)

    def some(self, tokens: slice | Bool[Tensor, " L"]) -> "TokenBatch":
        """Return some of the tokens of all slides."""
        return TokenBatch(self.x[:, tokens], self.rc_BL2[:, tokens], self.mask_BL[:, tokens])

    def to(self, device: torch.device | str) -> "TokenBatch":
        """Return the batch on another device."""
        return TokenBatch(self.x.to(device), self.rc_BL2.to(device), self.mask_BL.to(device))

    @staticmethod
    def collate(batches: Sequence["TokenBatch"]) -> "TokenBatch":
        """Join batches, usually of one slide each, and pad them to the longest; a DataLoader's `collate_fn`."""
        longest = max(batch.mask_BL.shape[1] for batch in batches)
        missing = [longest - batch.mask_BL.shape[1] for batch in batches]
        return TokenBatch(
            torch.cat([pad(batch.x, (0, 0, 0, n)) for batch, n in zip(batches, missing, strict=True)]),
            torch.cat([pad(batch.rc_BL2, (0, 0, 0, n)) for batch, n in zip(batches, missing, strict=True)]),
            torch.cat([pad(batch.mask_BL, (0, n)) for batch, n in zip(batches, missing, strict=True)]),
        )
