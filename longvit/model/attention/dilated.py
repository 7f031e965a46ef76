"""LongNet's dilated attention (Ding et al. 2023, arXiv:2307.02486): exact, linear in memory, on any torch device.

A branch (w, r) cuts the sequence into segments of w tokens and attends among every r-th token of a segment. LongNet
mixes its branches by their softmax denominators, which equals one softmax over the union of their keys. So branches are
merged into one running (out, logsumexp) as they are computed, and no branch's result is kept. Given the merged pair,
the flash-attention backward of each branch returns its share of the exact gradient.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from longvit.config import ExecutionConfig, paired
from longvit.model.attention.exchange import start_exchange
from longvit.model.attention.plan import AttentionPlan, Calls, HeadGroup, Padding
from longvit.model.attention.shares import row_lengths
from longvit.model.kernels.registry import attend, attend_backward


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

    Here `(segment_lengths, dilation_ratios)` are the paper's (w, r); logits are scaled by K ** -0.5. A key that several
    branches share counts once in each branch. Differences between the paper, the official code and this function:

    - reproduced: the offset of head h is `h // ceil(H / r)` as in the official code; in the paper it is `h mod r`;
    - reproduced: the output is 0 at padding, and at a position that no branch of a head covers;
    - optional: a segment cut short by the end of the sequence, or that the ratio does not divide, is simply shorter.
      With `padding="zero_keys"` it is filled with phantom keys (k = 0, v = 0, so a logit of 0), as in the official
      code. In causal attention phantom keys are in the future, and hidden;
    - fixed: mixing weights are differentiated; the official code computes them under `no_grad`;
    - refused: the official code shifts later segments if a ratio does not divide a segment, and drops a branch
      whose logsumexp is exactly 0.

    Args:
        q_BLHK: Queries.
        k_BLHK: Keys.
        v_BLHK: Values.
        segment_lengths: Segment length of each branch, tokens; a longer length than the sequence means the whole.
        dilation_ratios: Dilation of each branch.
        padding: Whether phantom keys take part in the softmax.
        mask_BL: True for real tokens, which precede all padding of their row. Without a mask every token is real.
        causal: Whether a token attends only to tokens up to itself, as in a language model.
        heads_at_once: Heads computed together; fewer need less memory and give the same numbers.

    Raises:
        ValueError: `mask_BL` has padding before a real token, or the two lists differ in length.
    """
    branches, execution = paired(segment_lengths, dilation_ratios), ExecutionConfig(heads_at_once=heads_at_once)
    plan = AttentionPlan(row_lengths(q_BLHK, mask_BL), q_BLHK.shape[2], branches, padding, causal, execution)
    return attend_by_plan(QKV(), plan, q_BLHK, k_BLHK, v_BLHK)


class QKV:
    """Queries, keys and values, made from tensors that autograd tracks: here the three tensors themselves."""

    def empty(self, heads: int, *tensors: Tensor) -> Float[Tensor, "B L H K"]:
        """Return empty memory for the output of all heads."""
        return torch.empty_like(tensors[0])

    def of_heads(self, heads: slice, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v of some heads, each (B, L, h, K)."""
        q_BLHK, k_BLHK, v_BLHK = tensors
        return q_BLHK[:, :, heads], k_BLHK[:, :, heads], v_BLHK[:, :, heads]

    def add_gradients_(
        self, grads: Sequence[Tensor | None], grad_qkv: Sequence[Tensor], heads: slice, *tensors: Tensor
    ) -> None:
        """Add the gradients of q, k and v of some heads to `grads`; None marks a tensor that needs no gradient."""
        for grad_BLHK, part in zip(grads, grad_qkv, strict=True):
            if grad_BLHK is not None:
                grad_BLHK[:, :, heads] = part


def attend_by_plan(
    qkv: QKV, plan: AttentionPlan, *tensors: Tensor, heads_at_once: int | None = None
) -> Float[Tensor, "B L H K"]:
    """Attend like `dilated_attention`, with the calls of a plan, one group of heads after another.

    Args:
        qkv: Rule that makes queries, keys and values from the tensors.
        plan: Plan of the forward pass.
        tensors: All tensors that the queries, keys and values are made from.
        heads_at_once: Heads computed together; default: as the plan's `execution` sets.
    """
    return _DilatedAttention.apply(qkv, plan, plan.calls(heads_at_once), *tensors)


def attend_branches(
    q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, groups: Sequence[HeadGroup], plan: AttentionPlan, out_BLHK: Tensor
) -> Tensor:
    """Merge the groups of some heads into `out_BLHK`, and return their logsumexp (B, L, H), float32 or wider."""
    exchange = start_exchange(plan, groups, k_BLHK, v_BLHK)
    exact = torch.promote_types(out_BLHK.dtype, torch.float32)
    merged_BLHK = torch.zeros_like(out_BLHK, dtype=exact) if out_BLHK.dtype != exact else out_BLHK.zero_()
    logsumexp_BLH = out_BLHK.new_full(out_BLHK.shape[:3], -math.inf, dtype=exact)

    def merge(group: HeadGroup, out: Tensor, logsumexp: Tensor) -> None:
        _merge_(group.view(merged_BLHK), group.view(logsumexp_BLH), group.put_back(out), group.put_back(logsumexp))

    for group in groups:
        out, logsumexp = attend(group.take(q_BLHK), group.take(k_BLHK), group.take(v_BLHK), causal=plan.causal)
        merge(group, *_with_phantoms(out.to(exact), logsumexp, group.phantoms))
    for group, (k, v) in exchange.arrived() if exchange else ():
        out, logsumexp = attend(group.take(q_BLHK), k, v)
        merge(group, out.to(exact), logsumexp)
    if merged_BLHK is not out_BLHK:
        out_BLHK.copy_(merged_BLHK)
    return logsumexp_BLH


def attend_branches_backward(
    grad_BLHK: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    groups: Sequence[HeadGroup],
    plan: AttentionPlan,
) -> list[Tensor]:
    """Return gradients of q, k and v of some heads, float32 or wider.

    `saved` is (q, k, v, out, logsumexp) of these heads, with `out` and `logsumexp` merged over all branches.
    """
    # Phantom keys need no term of their own: they are constants whose logits do not depend on the query, and their
    # softmax mass is already in the merged logsumexp.
    exchange = start_exchange(plan, groups, *saved[1:3])
    grads = [torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in saved[:3]]
    for group in groups:
        _add_share_(grads, group, grad_BLHK, saved, plan.causal)
    if exchange:
        for group, (k, v) in exchange.arrived():
            q, _, _, out, logsumexp = (group.take(x) for x in saved)
            grad_q, grad_k, grad_v = attend_backward(group.take(grad_BLHK), q, k, v, out, logsumexp)
            group.view(grads[0]).add_(group.put_back(grad_q))
            exchange.set_gradients(group, grad_k, grad_v)
        exchange.add_returned_(grads[1:])
    return grads


def _add_share_(
    grads: list[Tensor], group: HeadGroup, grad_BLHK: Tensor, saved: tuple[Tensor, ...], causal: bool
) -> None:
    """Add a group's share of the gradient; a separate function, so that the group's tensors are freed on return."""
    parts = attend_backward(group.take(grad_BLHK), *(group.take(x) for x in saved), causal=causal)
    for grad, part in zip(grads, parts, strict=True):
        group.view(grad).add_(group.put_back(part))


class _DilatedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: QKV, plan: AttentionPlan, calls: Calls, *tensors: Tensor) -> Tensor:  # noqa: ANN401
        out_BLHK, logsumexps, wanted = qkv.empty(calls[-1][0].stop, *tensors), [], any(ctx.needs_input_grad)
        for heads, groups in calls:
            some = qkv.of_heads(heads, *tensors)
            logsumexp_BLh = attend_branches(*some, groups, plan, out_BLHK[:, :, heads])
            del some  # before the tensors of the next heads are made
            logsumexps += [logsumexp_BLh] if wanted else []
        ctx.qkv, ctx.plan, ctx.calls = qkv, plan, calls
        if wanted:
            ctx.save_for_backward(out_BLHK, torch.cat(logsumexps, dim=2), *tensors)
        return out_BLHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLHK: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        out_BLHK, logsumexp_BLH, *tensors = ctx.saved_tensors  # read once: an outer checkpoint refuses a second time
        wanted = ctx.needs_input_grad[-len(tensors) :]
        grads = [torch.zeros_like(x) if want else None for x, want in zip(tensors, wanted, strict=True)]
        for heads, groups in ctx.calls:
            some = ctx.qkv.of_heads(heads, *tensors)
            saved = (*some, out_BLHK[:, :, heads], logsumexp_BLH[:, :, heads])
            grad_qkv = attend_branches_backward(grad_BLHK[:, :, heads], saved, groups, ctx.plan)
            del some, saved  # before more memory is needed
            ctx.qkv.add_gradients_(grads, grad_qkv, heads, *tensors)
            del grad_qkv  # before those of the next heads are made
        return None, None, None, *grads


def _with_phantoms(out: Tensor, logsumexp: Tensor, phantoms: int) -> tuple[Tensor, Tensor]:
    """Add `phantoms` keys of logit 0 and value 0 to a softmax: exp(0) each in the denominator, 0 in the numerator."""
    if not phantoms:
        return out, logsumexp
    total = torch.logaddexp(logsumexp, logsumexp.new_full((), math.log(phantoms)))
    return out * (logsumexp - total).exp().unsqueeze(-1), total


def _merge_(out: Tensor, logsumexp: Tensor, more_out: Tensor, more_logsumexp: Tensor) -> None:
    """Extend the softmax (out, logsumexp) in place by more keys; a logsumexp of -inf means no keys yet."""
    out.lerp_(more_out, torch.sigmoid(more_logsumexp - logsumexp).unsqueeze(-1))
    torch.logaddexp(logsumexp, more_logsumexp, out=logsumexp)
