"""Plan of dilated attention: every call of the primitive, made once per forward pass and shared by all layers."""

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
"""Tokens of neighbouring segments in one call of the primitive, which keeps its working memory small.

A segment is never cut.
"""


@dataclass(frozen=True)
class AttentionPlan:
    """Slide lengths, branches and execution of one forward pass; passed to layers in place of a mask."""

    lengths: tuple[int, ...]
    """Real tokens in each row; they precede all padding of the row."""
    heads: int
    """Number of heads H."""
    branches: tuple[tuple[int, int], ...]
    """(Segment length, dilation ratio) of each branch, tokens."""
    padding: Padding
    """As in `EncoderConfig`."""
    causal: bool
    """True if a token attends only to tokens up to itself."""
    execution: ExecutionConfig
    """Amounts computed at once, and layers computed twice."""

    @classmethod
    def of(
        cls,
        config: EncoderConfig,
        lengths: tuple[int, ...],
        execution: ExecutionConfig | None = None,
        *,
        causal: bool = False,
    ) -> "AttentionPlan":
        """Return an encoder's plan for slides of these lengths, tokens."""
        return cls(lengths, config.heads, config.branches, config.padding, causal, execution or ExecutionConfig())

    @property
    def phantoms(self) -> bool:
        """True if segments that are short of tokens are filled up with zero keys.

        In causal attention these keys are in the future, and hidden.
        """
        return self.padding == "zero_keys" and not self.causal

    @property
    def keys_per_query(self) -> float:
        """Mean number of keys that a query attends to in a head.

        A query attends to w / r keys of a segment, in 1 / r of the heads.
        """
        met = sum(n * min(length, n) / ratio**2 for n in self.lengths for length, ratio in self.branches)
        return met / max(1, sum(self.lengths))

    def calls(self, heads_at_once: int | None = None) -> "Calls":
        """Return every call of the primitive, grouped by the heads that are computed together.

        Args:
            heads_at_once: Heads computed together; default: as `execution` sets.
        """
        at_once = heads_at_once or self.execution.heads_at_once
        return _calls(self.lengths, self.heads, self.branches, self.phantoms, at_once)


@dataclass(frozen=True)
class HeadGroup:
    """Call of the primitive: heads of one branch over neighbouring segments of one length.

    Heads with neighbouring offsets share a call if each offset has as many heads and keeps as many tokens.
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
    """First token that the first of the heads keeps in a segment."""
    offsets: int
    """Number of different offsets of the heads; each offset is one token after the previous offset."""
    ratio: int
    """Dilation r: every r-th token is kept."""
    heads: slice
    """Heads, counted from the first head that is computed at the same time."""
    phantoms: int
    """Zero keys that fill up a segment in the official code."""

    def view(self, x: Tensor) -> Tensor:
        """Return the group's view of (B, L, H, ...): (rows, segments, offsets, heads per offset, kept tokens, ...)."""
        x = x[self.rows, self.start : self.start + self.segments * self.span]
        x = x.unflatten(1, (self.segments, self.span))[:, :, self.offset :, self.heads]
        # Windows of neighbouring offsets: the i-th share of the heads keeps the i-th token of a window, a diagonal.
        x = x.unfold(2, self.offsets, self.ratio).unflatten(3, (self.offsets, -1)).diagonal(dim1=3, dim2=-1)
        return x.movedim((-1, 3, 2), (2, 3, 4))

    def take(self, x: Tensor) -> Tensor:
        """Return (B, L, H, ...) as (rows * segments, heads, kept tokens, ...), the layout of the primitive.

        Copies unless the tokens of a head are packed, because kernels are up to twice as fast on packed tokens.
        """
        x = self.view(x).flatten(2, 3).flatten(0, 1)
        packed = x.ndim == 4 and x.stride()[2:] == (x.shape[3], 1)
        return x if packed else x.contiguous()

    def put_back(self, x: Tensor) -> Tensor:
        """Undo the layout of `take`; return the layout of `view`."""
        return x.unflatten(0, (-1, self.segments)).unflatten(2, (self.offsets, -1))


Calls = tuple[tuple[slice, tuple[HeadGroup, ...]], ...]
"""Slices of heads that are computed together, each with its calls of the primitive."""


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


@lru_cache(maxsize=64)  # all layers need the same calls, and so does the next slide of this length
def _calls(
    lengths: tuple[int, ...], heads: int, branches: tuple[tuple[int, int], ...], phantoms: bool, heads_at_once: int
) -> Calls:
    """Return the calls for rows of these lengths, tokens; neighbouring rows of equal length share calls."""
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
    """Yield (kept tokens, first offset, offsets, heads) of each call for `chunk` of the heads in segments of `span`."""
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
