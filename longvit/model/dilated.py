"""LongNet's dilated attention (Ding et al. 2023, arXiv:2307.02486): exact, linear in memory, wherever torch runs.

A branch (w, r) cuts the sequence into segments of w tokens and attends among every r-th token of a segment. LongNet
mixes its branches by their softmax denominators, which is one softmax over the union of their keys. So branches are
merged into one running (out, logsumexp) as they come, and nothing of a branch is kept: given the merged pair, the
flash-attention backward of each branch returns its share of the exact gradient.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Padding = Literal["masked", "zero_keys"]


def dilated_attention(
    q_BLHK: Float[Tensor, "B L H K"],
    k_BLHK: Float[Tensor, "B L H K"],
    v_BLHK: Float[Tensor, "B L H K"],
    segment_lengths: Sequence[int],
    dilation_ratios: Sequence[int],
    *,
    padding: Padding = "masked",
    mask_BL: Bool[Tensor, "B L"] | None = None,
) -> Float[Tensor, "B L H K"]:
    """Attend within dilated segments and mix the branches by their softmax denominators (LongNet).

    Our `(segment_lengths, dilation_ratios)` are the paper's (w, r); logits are scaled by K ** -0.5. A key that several
    branches share counts once in each. A position that no branch covers for a head gets 0 there, and so does padding.
    Where the paper and the official code part, or we from both:

    - the offset of head h is `h // ceil(H / r)` as in the official code; in the paper it is `h mod r`;
    - mixing weights are differentiated; the official code computes them under `no_grad`;
    - a segment cut short by the end of the sequence, or that the ratio does not divide, is just a shorter one. With
      `padding="zero_keys"` it is filled with phantom keys (k = 0, v = 0, so a logit of 0), as the official code does.

    Args:
        q_BLHK: Queries.
        k_BLHK: Keys.
        v_BLHK: Values.
        segment_lengths: Segment length of each branch, tokens; longer than the sequence means all of it.
        dilation_ratios: Dilation of each branch.
        padding: Whether phantom keys take part in the softmax.
        mask_BL: True for real tokens, which come before all padding of their row. Without it every token is real.

    Raises:
        ValueError: `mask_BL` has padding before a real token, or the two lists differ in length.
    """
    batch, length, heads, _ = q_BLHK.shape
    lengths = [length] * batch if mask_BL is None else _lengths(mask_BL)
    branches = list(zip(segment_lengths, dilation_ratios, strict=True))
    groups = tuple(_groups(lengths, heads, branches, padding))
    return _DilatedAttention.apply(q_BLHK, k_BLHK, v_BLHK, groups)


@dataclass(frozen=True)
class Group:
    """One call of the primitive: heads of one branch that share an offset, over neighbouring segments of one length."""

    rows: slice
    """Slides of the batch."""
    start: int
    """First token of the first segment."""
    segments: int
    """Number of segments."""
    span: int
    """Tokens in a segment."""
    offset: int
    """First token kept in a segment."""
    ratio: int
    """Every how many tokens one is kept."""
    heads: slice
    """Heads with this offset."""
    phantoms: int
    """Zero keys that fill a segment up in the official code."""

    def view(self, x: Tensor) -> Tensor:
        """(B, L, H, ...) -> the group's part (rows, segments, kept tokens, heads, ...), sharing memory."""
        x = x[self.rows, self.start : self.start + self.segments * self.span]
        return x.unflatten(1, (self.segments, self.span))[:, :, self.offset :: self.ratio, self.heads]

    def take(self, x: Tensor) -> Tensor:
        """(B, L, H, ...) -> (rows * segments, heads, kept tokens, ...), as the primitive wants it.

        Copies what is strided: kernels want the head width contiguous, and packed rows repay the copy.
        """
        return self.view(x).contiguous().flatten(0, 1).transpose(1, 2)

    def put_back(self, x: Tensor) -> Tensor:
        """Undo the layout of `take`, giving that of `view`."""
        return x.transpose(1, 2).unflatten(0, (-1, self.segments))


def _lengths(mask_BL: Bool[Tensor, "B L"]) -> list[int]:
    if (mask_BL[:, 1:] & ~mask_BL[:, :-1]).any():
        raise ValueError("mask_BL has padding before a real token; padding belongs at the end of each sequence")
    return mask_BL.sum(1).tolist()


def _groups(
    lengths: Sequence[int], heads: int, branches: Sequence[tuple[int, int]], padding: Padding
) -> Iterator[Group]:
    """Every call of the primitive that `dilated_attention` makes; neighbouring rows of equal length share theirs."""
    first = 0
    for length, run in groupby(lengths):
        rows = slice(first, first + len(list(run)))
        first = rows.stop
        for segment_length, ratio in branches if length else ():
            whole = min(segment_length, length)
            filled_to = math.ceil(whole / ratio) if padding == "zero_keys" else 0
            count, tail = divmod(length, whole)
            for start, segments, span in ((0, count, whole), (count * whole, 1, tail)):
                for offset, share in _offsets(heads, ratio, span):
                    phantoms = max(0, filled_to - math.ceil((span - offset) / ratio))
                    yield Group(rows, start, segments, span, offset, ratio, share, phantoms)


def _offsets(heads: int, ratio: int, span: int) -> Iterator[tuple[int, slice]]:
    """Offsets that keep a token of a segment of `span`, each with its heads: contiguous shares of ceil(H / r)."""
    size = math.ceil(heads / ratio)
    for offset, head in enumerate(range(0, heads, size)):
        if offset < span:
            yield offset, slice(head, head + size)


class _DilatedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, groups: tuple[Group, ...]) -> Tensor:  # noqa: ANN401
        backend = backend_for(q_BLHK)
        exact = torch.promote_types(q_BLHK.dtype, torch.float32)
        out_BLHK = torch.zeros_like(q_BLHK, dtype=exact)
        logsumexp_BLH = q_BLHK.new_full(q_BLHK.shape[:3], -math.inf, dtype=exact)
        for group in groups:
            out, logsumexp = backend.attend(group.take(q_BLHK), group.take(k_BLHK), group.take(v_BLHK))
            out, logsumexp = _with_phantoms(out.to(exact), logsumexp, group.phantoms)
            _merge_(group.view(out_BLHK), group.view(logsumexp_BLH), group.put_back(out), group.put_back(logsumexp))
        out_BLHK = out_BLHK.to(q_BLHK.dtype)
        ctx.groups = groups
        ctx.save_for_backward(q_BLHK, k_BLHK, v_BLHK, out_BLHK, logsumexp_BLH)
        return out_BLHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLHK: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        # Phantom keys need no term of their own: they are constants, with logits that no query moves, and their
        # softmax mass is already in the merged logsumexp.
        q_BLHK, k_BLHK, v_BLHK, *_ = saved = ctx.saved_tensors
        backend = backend_for(q_BLHK)
        exact = torch.promote_types(q_BLHK.dtype, torch.float32)
        grads = [torch.zeros_like(x, dtype=exact) for x in (q_BLHK, k_BLHK, v_BLHK)]
        for group in ctx.groups:
            parts = backend.attend_backward(group.take(grad_BLHK), *(group.take(x) for x in saved))
            for grad, part in zip(grads, parts, strict=True):
                group.view(grad).add_(group.put_back(part))
        return *(grad.to(q_BLHK.dtype) for grad in grads), None


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


class Backend(NamedTuple):
    """The one primitive and its backward, on (batch, heads, tokens, head width); logsumexp lacks the last axis."""

    attend: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """(q, k, v) -> (out, logsumexp), logsumexp in float32 or wider."""
    attend_backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    """(grad_out, q, k, v, out, logsumexp) -> (grad_q, grad_k, grad_v)."""


def _flash_cpu(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)


def _flash_cpu_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, logsumexp, 0.0, False
    )


def _math(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v))
    logits = q @ k.mT * q.shape[-1] ** -0.5
    return logits.softmax(-1) @ v, logits.logsumexp(-1)


def _math_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad, q, k, v, out = (x.to(logsumexp.dtype) for x in (grad, q, k, v, out))
    scale = q.shape[-1] ** -0.5
    weights = (q @ k.mT * scale - logsumexp.unsqueeze(-1)).exp()
    grad_logits = weights * (grad @ v.mT - (grad * out).sum(-1, keepdim=True)) * scale
    return grad_logits @ k, grad_logits.mT @ q, weights.mT @ grad


FLASH_CPU = Backend(_flash_cpu, _flash_cpu_backward)
"""torch's own blocked kernel: linear in memory, any head width."""
MATH = Backend(_math, _math_backward)
"""Plain matrix products, quadratic in the kept tokens of a segment: any device, and the oracle of the others."""


def backend_for(x: Tensor) -> Backend:
    """Choose the fastest backend for tensors like `x`."""
    return FLASH_CPU if x.device.type == "cpu" else MATH
