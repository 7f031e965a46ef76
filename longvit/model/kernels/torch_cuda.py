"""Kernels for NVIDIA devices, both from torch: FlashAttention 2 and memory-efficient attention."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

_LOGSUMEXP_ALIGNMENT = 32
"""Multiple of queries to which the memory-efficient kernel fills up a logsumexp."""


def flash_cuda(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Return output and logsumexp of FlashAttention 2, like `AttentionBackend.attend`."""
    out, logsumexp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)
    return out, logsumexp


def flash_cuda_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, like `AttentionBackend.attend_backward`."""
    # No sequence is packed, and without dropout the state of the random numbers is not read.
    lengths, state = (q.shape[-2], k.shape[-2]), torch.empty(2, dtype=torch.uint64, device=q.device)
    return torch.ops.aten._scaled_dot_product_flash_attention_backward(
        grad, q, k, v, out, logsumexp.contiguous(), None, None, *lengths, 0.0, causal, state, state
    )


def efficient_cuda(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Return output and logsumexp of memory-efficient attention, like `AttentionBackend.attend`."""
    out, logsumexp, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal)
    return out, logsumexp[..., : q.shape[-2]]


def efficient_cuda_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, like `AttentionBackend.attend_backward`."""
    # The kernel reads the memory of `out` as (batch, tokens, heads, width) without checking it. It also reads a full
    # logsumexp, in which infinity gives weights of 0.
    out = out.transpose(1, 2).contiguous().transpose(1, 2)
    logsumexp = pad(logsumexp, (0, -logsumexp.shape[-1] % _LOGSUMEXP_ALIGNMENT), value=math.inf)
    state, wanted = torch.empty((), dtype=torch.int64), [True, True, True, False]
    *grads, _ = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
        grad, q, k, v, None, out, logsumexp.contiguous(), state, state, 0.0, wanted, causal
    )
    return tuple(grads)
