"""Lengths of a batch's sequences, and their cut into shares of ranks."""

from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from longvit.model.rank_group import RankGroup


class Shares(NamedTuple):
    """Cut of a sequence into contiguous shares, one per rank, from the view of one rank."""

    borders: tuple[int, ...]
    """First token of each share, and the end of the last share."""
    rank: int
    """The rank."""

    def of(self, tokens: range) -> dict[int, range]:
        """Return each rank's piece of a range of tokens, for ranks that have one."""
        pieces = (range(max(tokens.start, a), min(tokens.stop, b)) for a, b in pairwise(self.borders))
        return {rank: piece for rank, piece in enumerate(pieces) if piece}


def shared_lengths(x: Tensor, mask_BL: Bool[Tensor, "B L"] | None, group: RankGroup) -> tuple[tuple[int, ...], Shares]:
    """Return the number of real tokens in each row of the whole sequence, and the shares of the group's ranks.

    Args:
        x: Tokens of this rank (B, l, ...).
        mask_BL: True for a real token of this rank; without a mask every token is real.
        group: Ranks that hold the sequence together.

    Raises:
        ValueError: A row has padding before a real token, on one rank or across ranks; raised on every rank.
    """
    real_BL = x.new_ones(x.shape[:2], dtype=torch.bool) if mask_BL is None else mask_BL
    misplaced = (real_BL[:, 1:] & ~real_BL[:, :-1]).sum()
    own = torch.cat([real_BL.sum(1), misplaced[None], misplaced.new_tensor([x.shape[1]])])
    *of_rows, wrong, lengths = zip(*group.gathered(own).tolist(), strict=True)
    borders = (0, *accumulate(lengths))
    for row in of_rows:
        end = max((start + n for start, n in zip(borders, row, strict=False) if n), default=0)
        wrong += (end - sum(row),)
    if any(wrong):
        raise ValueError("mask_BL has padding before a real token; padding belongs at the end of each sequence")
    return tuple(sum(row) for row in of_rows), Shares(borders, group.rank)


def row_lengths(x: Tensor, mask_BL: Bool[Tensor, "B L"] | None) -> tuple[int, ...]:
    """Return the number of real tokens in each row of `x` (B, L, ...), with one synchronisation of the device.

    Raises:
        ValueError: `mask_BL` has padding before a real token.
    """
    if mask_BL is None:
        return (x.shape[1],) * len(x)
    misplaced = (mask_BL[:, 1:] & ~mask_BL[:, :-1]).sum()
    *lengths, wrong = torch.cat([mask_BL.sum(1), misplaced[None]]).tolist()
    if wrong:
        raise ValueError("mask_BL has padding before a real token; padding belongs at the end of each sequence")
    return tuple(lengths)
