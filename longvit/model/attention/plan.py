"""Plan of dilated attention: every call of the primitive, made once per forward pass and shared by all layers.

A sequence may be cut into contiguous shares, one for each rank of a `RankGroup`. The plan of a rank is the plan of
the whole sequence, restricted to the rank's share. Segments within the share are computed as on one device. Of a
segment that a border cuts, the rank's queries attend to the rank's own kept keys in one call, and to the kept keys of
other ranks in a second call, after these keys have arrived.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple

from jaxtyping import Bool
from torch import Tensor

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.model.attention.shares import Shares, row_lengths, shared_lengths
from longvit.model.rank_group import RankGroup, SharedBatch

Padding = Literal["masked", "zero_keys"]

_TOKENS_AT_ONCE = 16384
"""Tokens of neighbouring segments in one call of the primitive, which keeps its working memory small.

A segment is never cut.
"""


@dataclass(frozen=True)
class AttentionPlan:
    """Slide lengths, branches and execution of one forward pass; passed to layers in place of a mask."""

    lengths: tuple[int, ...]
    """Real tokens in each row of the whole sequence; they precede all padding of the row."""
    heads: int
    """Number of heads H."""
    branches: tuple[tuple[int, int], ...]
    """(Segment length, dilation ratio) of each branch, tokens."""
    padding: Padding
    """As in `EncoderConfig`."""
    causal: bool
    """True if a token attends only to tokens up to itself. Then layers rotate queries and keys by their places."""
    execution: ExecutionConfig
    """Amounts computed at once, and layers computed twice."""
    shares: Shares | None = None
    """Shares of the ranks of `group`; None if this process holds the whole sequence."""
    group: RankGroup | None = None
    """Ranks that hold the sequence together."""
    batch: SharedBatch | None = None
    """Batch of several ranks, of which this rank has some slides; None if this process has all of it."""

    @classmethod
    def of(
        cls,
        config: EncoderConfig,
        lengths: tuple[int, ...],
        execution: ExecutionConfig | None = None,
        *,
        causal: bool = False,
        shares: Shares | None = None,
        group: RankGroup | None = None,
        batch: SharedBatch | None = None,
    ) -> "AttentionPlan":
        """Return an encoder's plan for slides of these lengths, tokens."""
        execution = execution or ExecutionConfig()
        return cls(lengths, config.heads, config.branches, config.padding, causal, execution, shares, group, batch)

    @classmethod
    def of_tokens(
        cls,
        config: EncoderConfig,
        x: Tensor,
        mask_BL: Bool[Tensor, "B L"] | None,
        execution: ExecutionConfig | None = None,
        group: RankGroup | None = None,
        *,
        causal: bool = False,
        batch: SharedBatch | None = None,
    ) -> "AttentionPlan":
        """Return an encoder's plan for tokens (B, L, ...), of which every rank of a group gives its share.

        Raises:
            ValueError: As `row_lengths` and `shared_lengths`.
        """
        if group is None:
            return cls.of(config, row_lengths(x, mask_BL), execution, causal=causal, batch=batch)
        lengths, shares = shared_lengths(x, mask_BL, group)
        return cls.of(config, lengths, execution, causal=causal, shares=shares, group=group, batch=batch)

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
        shares = self.shares or Shares((0, max(self.lengths, default=0)), 0)
        return _calls(self.lengths, _Rule(self.heads, self.branches, self.phantoms, self.causal), at_once, shares)

    @property
    def first_token(self) -> int:
        """First token of this rank's share."""
        return self.shares.borders[self.shares.rank] if self.shares else 0

    @property
    def exchanges(self) -> bool:
        """True if a border cuts a segment; then all ranks exchange keys, once for each group of heads."""
        borders = self.shares.borders[1:-1] if self.shares else ()
        return any(
            border % min(length, n)
            for n in self.lengths
            for length, _ in self.branches
            for border in borders
            if border < n
        )

    @property
    def sent_tokens(self) -> int:
        """Number of kept tokens that this rank sends in a layer, once per head and rank that needs them."""
        groups = (group for _, groups in self.calls() for group in groups)
        return sum(math.prod(group.shape) * len(group.targets) for group in groups)

    @property
    def received_tokens(self) -> int:
        """Number of kept tokens that this rank receives in a layer, once per head."""
        groups = (group for _, groups in self.calls() for group in groups)
        return sum(math.prod(group.shape[:2]) * kept for group in groups for _, kept in group.sources)


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
    ratio: int
    """Dilation r: every r-th token is kept."""
    offset: int
    """First token that the first of the heads keeps in a segment."""
    offsets: int
    """Number of different offsets of the heads; each offset is one token after the previous offset."""
    heads: slice
    """Heads, counted from the first head that is computed at the same time."""
    kept: int
    """Number of tokens that a head keeps in each segment, or in the rank's piece of the segment."""
    phantoms: int
    """Zero keys that fill up a segment in the official code."""
    sources: tuple[tuple[int, int], ...] = ()
    """(Rank, kept tokens) of keys of the same segment and heads that the queries attend to on top of this call."""
    targets: tuple[int, ...] = ()
    """Ranks whose queries attend to the keys of this call."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the result of `take`, without its last axis."""
        heads = self.heads.stop - self.heads.start
        return (self.rows.stop - self.rows.start) * self.segments, heads, self.kept

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


class _Rule(NamedTuple):
    """Fields of a plan that do not depend on the slides."""

    heads: int
    branches: tuple[tuple[int, int], ...]
    phantoms: bool
    causal: bool


@lru_cache(maxsize=64)  # all layers need the same calls, and so does the next slide of this length
def _calls(lengths: tuple[int, ...], rule: _Rule, heads_at_once: int, shares: Shares) -> Calls:
    """Return the calls for rows of these lengths, tokens; neighbouring rows of equal length share calls."""
    starts = range(0, rule.heads, heads_at_once)
    chunks = (slice(first, min(first + heads_at_once, rule.heads)) for first in starts)
    return tuple((chunk, tuple(_groups(lengths, rule, chunk, shares))) for chunk in chunks)


def _groups(lengths: Sequence[int], rule: _Rule, chunk: slice, shares: Shares) -> Iterator[HeadGroup]:
    first, rank = 0, shares.rank
    for length, run in groupby(lengths):
        rows = slice(first, first + len(list(run)))
        first = rows.stop
        share = shares.of(range(length)).get(rank, range(0))
        for branch, (segment_length, ratio) in enumerate(rule.branches if share else ()):
            whole = min(segment_length, length)
            filled_to = math.ceil(whole / ratio) if rule.phantoms else 0
            for start, segments, span in _neighbours(share, whole):
                segment = range(start - start % whole, min(start - start % whole + whole, length))
                pieces = shares.of(segment) if segments == 1 else {rank: segment}
                for kept, offset, offsets, some in _diagonals(rule.heads, chunk, ratio, segment.start, pieces, rank):
                    others = [other for other in kept if kept[rank] and kept[other] and other != rank]
                    sources = tuple((other, kept[other]) for other in others if other < rank or not rule.causal)
                    targets = tuple(other for other in others if other > rank or not rule.causal)
                    own = kept[rank], max(0, filled_to - sum(kept.values())), sources, targets
                    at_once = max(1, _TOKENS_AT_ONCE // span)
                    for i in range(0, segments if kept[rank] else 0, at_once):
                        at, count = start - share.start + i * span, min(at_once, segments - i)
                        yield HeadGroup(branch, rows, at, count, span, ratio, offset, offsets, some, *own)


def _neighbours(share: range, whole: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first token, segments, tokens in each) of the whole segments of a share, and of the pieces at its ends."""
    inner = min(share.stop, math.ceil(share.start / whole) * whole)
    count, tail = divmod(share.stop - inner, whole)
    parts = (share.start, 1, inner - share.start), (inner, count, whole), (inner + count * whole, 1, tail)
    return ((start, segments, span) for start, segments, span in parts if segments and span)


def _diagonals(
    heads: int, chunk: slice, ratio: int, segment: int, pieces: Mapping[int, range], rank: int
) -> Iterator[tuple[dict[int, int], int, int, slice]]:
    """Yield the calls for `chunk` of the heads in a segment: heads that keep equally many tokens, on every rank.

    Yields (kept tokens on each rank, first kept token in the piece of `rank`, offsets, heads). All ranks yield the same
    calls in the same order.
    """
    size = math.ceil(heads / ratio)
    lanes = []
    for offset, head in enumerate(range(0, heads, size)):
        low, high = max(head, chunk.start), min(head + size, chunk.stop)
        if low < high:
            first = {key: (segment + offset - piece.start) % ratio for key, piece in pieces.items()}
            kept = {key: len(range(first[key], len(piece), ratio)) for key, piece in pieces.items()}
            wraps = [value - offset for value in first.values()]
            lanes.append((kept, high - low, wraps, first[rank], low - chunk.start))
    for (kept, width, _), run in groupby(lanes, key=lambda lane: lane[:3]):
        (*_, first, low), *more = run
        offsets = 1 + len(more)
        yield kept, first, offsets, slice(low, low + offsets * width)
