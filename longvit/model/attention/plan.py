"""Plan of dilated attention: every call of the primitive, decided once per forward pass and taken by all layers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from longvit.config import EncoderConfig, ExecutionConfig

Padding = Literal["masked", "zero_keys"]

_TOKENS_AT_ONCE = 16384
"""Tokens of neighbouring segments in one call of the primitive, so that what it needs beside its arguments stays small;
a segment is never cut."""


@dataclass(frozen=True)
class AttentionPlan:
    """Lengths of the slides, branches and execution of one forward pass; layers take it in place of a mask."""

    lengths: tuple[int, ...]
    """Real tokens in each row, before all padding of the row."""
    heads: int
    """Number of heads H."""
    branches: tuple[tuple[int, int], ...]
    """(Segment length, dilation ratio) of each branch, tokens."""
    padding: Padding
    """As in `EncoderConfig`."""
    causal: bool
    """Whether a token sees only those up to itself."""
    execution: ExecutionConfig
    """How much is computed at once, and twice."""

    @classmethod
    def of(
        cls,
        config: EncoderConfig,
        lengths: tuple[int, ...],
        execution: ExecutionConfig | None = None,
        *,
        causal: bool = False,
    ) -> "AttentionPlan":
        """Return the plan of an encoder for slides of these lengths."""
        return cls(lengths, config.heads, config.branches, config.padding, causal, execution or ExecutionConfig())

    @property
    def phantoms(self) -> bool:
        """Return whether segments that are short of tokens are filled up with zero keys.

        To causal attention these are keys of the future, and hidden.
        """
        return self.padding == "zero_keys" and not self.causal

    @property
    def keys_per_query(self) -> float:
        """Return the mean number of keys that a query meets in a head.

        A query meets w / r keys in a segment, in 1 / r of the heads.
        """
        met = sum(n * min(length, n) / ratio**2 for n in self.lengths for length, ratio in self.branches)
        return met / max(1, sum(self.lengths))

    def calls(self, heads_at_once: int | None = None) -> "Calls":
        """Return every call of the primitive, by the heads that are computed together.

        Args:
            heads_at_once: Heads computed together; default that of `execution`.
        """
        at_once = heads_at_once or self.execution.heads_at_once
        return _calls(self.lengths, self.heads, self.branches, self.phantoms, at_once)


@dataclass(frozen=True)
class HeadGroup:
    """One call of the primitive: heads of one branch over neighbouring segments of one length.

    Heads with neighbouring offsets share a call where each offset has as many heads, and keeps as many tokens.
    """

    branch: int
    """Index of the branch."""
    rows: slice
    """Slides of the batch."""
    start: int
    """First token of the first segment."""
    segments: int
    """Number of segments."""
    span: int
    """Tokens in a segment."""
    offset: int
    """First token kept in a segment by the first of the heads."""
    offsets: int
    """How many offsets the heads have; each keeps the tokens just after those of the one before."""
    ratio: int
    """Every how many tokens one is kept."""
    heads: slice
    """The heads, counted from the first that is computed at the same time."""
    phantoms: int
    """Zero keys that fill a segment up in the official code."""

    def view(self, x: Tensor) -> Tensor:
        """(B, L, H, ...) -> the group's (rows, segments, offsets, heads of one, kept tokens, ...), sharing memory."""
        x = x[self.rows, self.start : self.start + self.segments * self.span]
        x = x.unflatten(1, (self.segments, self.span))[:, :, self.offset :, self.heads]
        # Windows of neighbouring offsets, of which the i-th share of the heads keeps the i-th token: a diagonal.
        x = x.unfold(2, self.offsets, self.ratio).unflatten(3, (self.offsets, -1)).diagonal(dim1=3, dim2=-1)
        return x.movedim((-1, 3, 2), (2, 3, 4))

    def take(self, x: Tensor) -> Tensor:
        """(B, L, H, ...) -> (rows * segments, heads, kept tokens, ...), as the primitive wants it.

        Copies unless the tokens of a head are packed: kernels are up to twice as fast on packed ones.
        """
        x = self.view(x).flatten(2, 3).flatten(0, 1)
        packed = x.ndim == 4 and x.stride()[2:] == (x.shape[3], 1)
        return x if packed else x.contiguous()

    def put_back(self, x: Tensor) -> Tensor:
        """Undo the layout of `take`, giving that of `view`."""
        return x.unflatten(0, (-1, self.segments)).unflatten(2, (self.offsets, -1))


Calls = tuple[tuple[slice, tuple[HeadGroup, ...]], ...]
"""Heads that are computed together, and the calls that they need."""


def row_lengths(x: Tensor, mask_BL: Bool[Tensor, "B L"] | None) -> tuple[int, ...]:
    """Return the number of real tokens in each row of `x` (B, L, ...); a device is asked once.

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


@lru_cache(maxsize=64)  # all layers ask for the same, and so does the next slide of this length
def _calls(
    lengths: tuple[int, ...], heads: int, branches: tuple[tuple[int, int], ...], phantoms: bool, heads_at_once: int
) -> Calls:
    """Return the calls for rows of these lengths; neighbouring rows of equal length share calls."""
    chunks = (slice(first, min(first + heads_at_once, heads)) for first in range(0, heads, heads_at_once))
    return tuple((chunk, tuple(_groups(lengths, heads, chunk, branches, phantoms))) for chunk in chunks)


def _groups(
    lengths: Sequence[int], heads: int, chunk: slice, branches: Sequence[tuple[int, int]], phantoms: bool
) -> Iterator[HeadGroup]:
    first = 0
    for length, run in groupby(lengths):
        rows = slice(first, first + len(list(run)))
        first = rows.stop
        for branch, (segment_length, ratio) in enumerate(branches if length else ()):
            whole = min(segment_length, length)
            filled_to = math.ceil(whole / ratio) if phantoms else 0
            count, tail = divmod(length, whole)
            for start, segments, span in ((0, count, whole), (count * whole, 1, tail)):
                for kept, offset, offsets, share in _diagonals(heads, chunk, ratio, span):
                    lanes = offset, offsets, ratio, share, max(0, filled_to - kept)
                    most = max(1, _TOKENS_AT_ONCE // span)
                    for at in range(0, segments, most):
                        yield HeadGroup(branch, rows, start + at * span, min(most, segments - at), span, *lanes)


def _diagonals(heads: int, chunk: slice, ratio: int, span: int) -> Iterator[tuple[int, int, int, slice]]:
    """(kept tokens, first offset, offsets, heads) of each call for `chunk` of the heads in segments of `span`."""
    size = math.ceil(heads / ratio)
    shares = []
    for offset, head in enumerate(range(0, heads, size)):
        low, high = max(head, chunk.start), min(head + size, chunk.stop)
        if low < high and offset < span:
            shares.append((math.ceil((span - offset) / ratio), high - low, offset, low - chunk.start))
    for (kept, width), run in groupby(shares, key=lambda share: share[:2]):
        (_, _, offset, low), *more = run
        offsets = 1 + len(more)
        yield kept, offset, offsets, slice(low, low + offsets * width)
