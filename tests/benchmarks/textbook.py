"""LongNet's dilated attention as its paper writes it (arXiv:2307.02486, equations 2 to 9): ours is timed with it.

Each branch is made dense: its outputs and softmax denominators are scattered to (B, L, H, ...), all branches are kept,
and mixed in the end. Mixing weights are constants to the gradient and heads are shifted by `h // ceil(H / r)`, both as
in the official code, which does it in this way too. The kernel is the same as ours, torch's flash attention, for CPUs
or, in half precision, for NVIDIA devices.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_FLASH = {
    "cpu": torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    "cuda": torch.ops.aten._scaled_dot_product_flash_attention,
}


def dilated_attention(
    q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, segment_lengths: Sequence[int], dilation_ratios: Sequence[int]
) -> Tensor:
    """Mix the branches (w, r); w divides the sequence length or exceeds it, r divides w."""
    outs, logsumexps = [], []
    for segment_length, ratio in zip(segment_lengths, dilation_ratios, strict=True):
        out, logsumexp = _branch(q_BLHK, k_BLHK, v_BLHK, min(segment_length, q_BLHK.shape[1]), ratio)
        outs.append(out)
        logsumexps.append(logsumexp)
    with torch.no_grad():
        weights = torch.stack(logsumexps).softmax(0).to(q_BLHK.dtype)
    return sum(weight.unsqueeze(-1) * out for weight, out in zip(weights, outs, strict=True))


def _branch(q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, segment: int, ratio: int) -> tuple[Tensor, Tensor]:
    """Return a dense branch: (B, L, H, K) and (B, L, H), 0 and -inf for tokens that a head does not keep."""
    batch, length, heads, width = q_BLHK.shape
    share = math.ceil(heads / ratio)
    places, offsets = torch.arange(0, segment, ratio), torch.arange(heads) // share
    kept = (places[:, None] + offsets)[:, :, None].to(q_BLHK.device)  # (tokens of a segment, H, 1)
    q, k, v = (_sparse(x.unflatten(1, (-1, segment)), kept) for x in (q_BLHK, k_BLHK, v_BLHK))
    out, logsumexp, *_ = _FLASH[q.device.type](q, k, v)
    out = out.transpose(1, 2).unflatten(0, (batch, -1))
    logsumexp = logsumexp.transpose(1, 2).unflatten(0, (batch, -1)).unsqueeze(-1)
    dense = out.new_zeros(batch, length // segment, segment, heads, width)
    dense_logsumexp = logsumexp.new_full((batch, length // segment, segment, heads, 1), -math.inf)
    where = kept.expand(*out.shape[:2], *kept.shape[:2], width)
    dense = dense.scatter(2, where, out)
    dense_logsumexp = dense_logsumexp.scatter(2, where[..., :1], logsumexp.detach())
    return dense.flatten(1, 2), dense_logsumexp.flatten(1, 2).squeeze(-1)


def _sparse(x: Tensor, kept: Tensor) -> Tensor:
    """Return each head's tokens of each segment: (B, segments, w, H, K) -> (B * segments, H, w / r, K)."""
    return x.gather(2, kept.expand(*x.shape[:2], *kept.shape[:2], x.shape[-1])).flatten(0, 1).transpose(1, 2)
