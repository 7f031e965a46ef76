"""LongNet's dilated attention (Ding et al. 2023, arXiv:2307.02486): exact, linear in memory, wherever torch runs.

A branch (w, r) cuts the sequence into segments of w tokens and attends among every r-th token of a segment. LongNet
mixes its branches by their softmax denominators, which is one softmax over the union of their keys. So branches are
merged into one running (out, logsumexp) as they come, and nothing of a branch is kept: given the merged pair, the
flash-attention backward of each branch returns its share of the exact gradient.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from longvit.model.kernels.registry import attend, attend_backward

Padding = Literal["masked", "zero_keys"]

_TOKENS_AT_ONCE = 16384
"""Tokens of neighbouring segments in one call of the primitive, so that what it needs beside its arguments stays small;
a segment is never cut."""


def dilated_attention(
    q_BLHK: Float[Tensor, "B L H K"],
    k_BLHK: Float[Tensor, "B L H K"],
    v_BLHK: Float[Tensor, "B L H K"],
    segment_lengths: Sequence[int],
    dilation_ratios: Sequence[int],
    *,
    padding: Padding = "masked",
    mask_BL: Bool[Tensor, "B L"] | None = None,
    causal: bool = False,
    heads_at_once: int = 4,
) -> Float[Tensor, "B L H K"]:
    """Attend within dilated segments and mix the branches by their softmax denominators (LongNet).

    Our `(segment_lengths, dilation_ratios)` are the paper's (w, r); logits are scaled by K ** -0.5. A key that several
    branches share counts once in each. Where the paper and the official code part, or we from both:

    - reproduced: the offset of head h is `h // ceil(H / r)` as in the official code; in the paper it is `h mod r`;
    - reproduced: a position that no branch covers for a head gets 0 there, and so does padding;
    - on demand: a segment cut short by the end of the sequence, or that the ratio does not divide, is just a shorter
      one. With `padding="zero_keys"` it is filled with phantom keys (k = 0, v = 0, so a logit of 0), as the official
      code does; to causal attention they are keys of the future, and hidden;
    - mended: mixing weights are differentiated; the official code computes them under `no_grad`;
    - refused: the official code shifts later segments where a ratio does not divide a segment, and drops a branch
      whose logsumexp is exactly 0.

    Args:
        q_BLHK: Queries.
        k_BLHK: Keys.
        v_BLHK: Values.
        segment_lengths: Segment length of each branch, tokens; longer than the sequence means all of it.
        dilation_ratios: Dilation of each branch.
        padding: Whether phantom keys take part in the softmax.
        mask_BL: True for real tokens, which come before all padding of their row. Without it every token is real.
        causal: Whether a token sees only those up to itself, as in a language model.
        heads_at_once: Heads computed together; fewer need less memory and give the same numbers.

    Raises:
        ValueError: `mask_BL` has padding before a real token, or the two lists differ in length.
    """
    branches = tuple(zip(segment_lengths, dilation_ratios, strict=True))
    phantoms = padding == "zero_keys" and not causal
    plan = plan_calls(row_lengths(q_BLHK, mask_BL), q_BLHK.shape[2], branches, phantoms, heads_at_once)
    return _DilatedAttention.apply(q_BLHK, k_BLHK, v_BLHK, plan, causal)


@dataclass(frozen=True)
class Group:
    """One call of the primitive: heads of one branch over neighbouring segments of one length.

    Heads with neighbouring offsets share a call where each offset has as many heads, and keeps as many tokens.
    """

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


Plan = tuple[tuple[slice, tuple[Group, ...]], ...]
"""Heads that are computed together, and the calls that they need."""


def row_lengths(x: Tensor, mask_BL: Bool[Tensor, "B L"] | None) -> tuple[int, ...]:
    """Real tokens in each row of `x` (B, L, ...).

    Raises:
        ValueError: `mask_BL` has padding before a real token.
    """
    if mask_BL is None:
        return (x.shape[1],) * len(x)
    if (mask_BL[:, 1:] & ~mask_BL[:, :-1]).any():
        raise ValueError("mask_BL has padding before a real token; padding belongs at the end of each sequence")
    return tuple(mask_BL.sum(1).tolist())


@lru_cache(maxsize=64)  # all layers of an encoder ask for the same
def plan_calls(
    lengths: tuple[int, ...], heads: int, branches: tuple[tuple[int, int], ...], phantoms: bool, heads_at_once: int
) -> Plan:
    """Every call of the primitive that `dilated_attention` makes.

    Args:
        lengths: Real tokens in each row; neighbouring rows of equal length share calls.
        heads: Number of heads H.
        branches: (segment length, dilation ratio) of each branch.
        phantoms: Whether segments that are short of tokens are filled up with zero keys.
        heads_at_once: Heads computed together.
    """
    chunks = (slice(first, min(first + heads_at_once, heads)) for first in range(0, heads, heads_at_once))
    return tuple((chunk, tuple(_groups(lengths, heads, chunk, branches, phantoms))) for chunk in chunks)


def _groups(
    lengths: Sequence[int], heads: int, chunk: slice, branches: Sequence[tuple[int, int]], phantoms: bool
) -> Iterator[Group]:
    first = 0
    for length, run in groupby(lengths):
        rows = slice(first, first + len(list(run)))
        first = rows.stop
        for segment_length, ratio in branches if length else ():
            whole = min(segment_length, length)
            filled_to = math.ceil(whole / ratio) if phantoms else 0
            count, tail = divmod(length, whole)
            for start, segments, span in ((0, count, whole), (count * whole, 1, tail)):
                for kept, offset, offsets, share in _diagonals(heads, chunk, ratio, span):
                    lanes = offset, offsets, ratio, share, max(0, filled_to - kept)
                    most = max(1, _TOKENS_AT_ONCE // span)
                    for at in range(0, segments, most):
                        yield Group(rows, start + at * span, min(most, segments - at), span, *lanes)


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


def attend_branches(
    q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, groups: Sequence[Group], causal: bool, out_BLHK: Tensor
) -> Tensor:
    """Merge the groups of some heads into `out_BLHK`, and return their logsumexp (B, L, H), float32 or wider."""
    exact = torch.promote_types(out_BLHK.dtype, torch.float32)
    merged_BLHK = torch.zeros_like(out_BLHK, dtype=exact) if out_BLHK.dtype != exact else out_BLHK.zero_()
    logsumexp_BLH = out_BLHK.new_full(out_BLHK.shape[:3], -math.inf, dtype=exact)
    for group in groups:
        out, logsumexp = attend(group.take(q_BLHK), group.take(k_BLHK), group.take(v_BLHK), causal=causal)
        out, logsumexp = _with_phantoms(out.to(exact), logsumexp, group.phantoms)
        _merge_(group.view(merged_BLHK), group.view(logsumexp_BLH), group.put_back(out), group.put_back(logsumexp))
    if merged_BLHK is not out_BLHK:
        out_BLHK.copy_(merged_BLHK)
    return logsumexp_BLH


def attend_branches_backward(
    grad_BLHK: Tensor, saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], groups: Sequence[Group], causal: bool
) -> list[Tensor]:
    """Gradients of q, k and v of some heads, float32 or wider; `saved` is (q, k, v, out, logsumexp), all merged."""
    # Phantom keys need no term of their own: they are constants, with logits that no query moves, and their
    # softmax mass is already in the merged logsumexp.
    grads = [torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in saved[:3]]
    for group in groups:
        _add_share_(grads, group, grad_BLHK, saved, causal)
    return grads


def _add_share_(grads: list[Tensor], group: Group, grad_BLHK: Tensor, saved: tuple[Tensor, ...], causal: bool) -> None:
    """Add a group's share of the gradient; in a function, so that nothing of one group outlives it."""
    parts = attend_backward(group.take(grad_BLHK), *(group.take(x) for x in saved), causal=causal)
    for grad, part in zip(grads, parts, strict=True):
        group.view(grad).add_(group.put_back(part))


class _DilatedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, plan: Plan, causal: bool) -> Tensor:  # noqa: ANN401
        out_BLHK = torch.empty_like(q_BLHK)
        logsumexps = [
            attend_branches(*(x[:, :, heads] for x in (q_BLHK, k_BLHK, v_BLHK)), groups, causal, out_BLHK[:, :, heads])
            for heads, groups in plan
        ]
        ctx.plan, ctx.causal = plan, causal
        ctx.save_for_backward(q_BLHK, k_BLHK, v_BLHK, out_BLHK, torch.cat(logsumexps, dim=2))
        return out_BLHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLHK: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        saved = ctx.saved_tensors  # asked for once: a checkpoint around us gives them no second time
        grads = [torch.empty_like(x) for x in saved[:3]]
        for heads, groups in ctx.plan:
            some = tuple(x[:, :, heads] for x in saved)
            parts = attend_branches_backward(grad_BLHK[:, :, heads], some, groups, ctx.causal)
            for grad, part in zip(grads, parts, strict=True):
                grad[:, :, heads] = part
        return *grads, None, None


def _with_phantoms(out: Tensor, logsumexp: Tensor, phantoms: int) -> tuple[Tensor, Tensor]:
    """Add `phantoms` keys of logit 0 and value 0 to a softmax: exp(0) each in the denominator, nothing above it."""
    if not phantoms:
        return out, logsumexp
    total = torch.logaddexp(logsumexp, logsumexp.new_tensor(math.log(phantoms)))
    return out * (logsumexp - total).exp().unsqueeze(-1), total


def _merge_(out: Tensor, logsumexp: Tensor, more_out: Tensor, more_logsumexp: Tensor) -> None:
    """Extend the softmax (out, logsumexp) in place by more keys; -inf stands for no key so far."""
    out.lerp_(more_out, torch.sigmoid(more_logsumexp - logsumexp).unsqueeze(-1))
    torch.logaddexp(logsumexp, more_logsumexp, out=logsumexp)
