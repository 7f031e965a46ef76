"""Kernel of plain matrix products, some queries at a time: for any device, and the reference for other kernels."""

import math

import torch
from torch import Tensor

_LOGITS_AT_ONCE = 2**26
"""Logits in memory at a time: 256 MiB in float32."""


def plain_math(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Return output and logsumexp, like `AttentionBackend.attend`."""
    parts = []
    for rows in _row_blocks(q, k):
        logits = _logits(q, k, rows, causal)
        logsumexp = logits.logsumexp(-1)
        parts.append(((logits - logsumexp.unsqueeze(-1)).exp() @ v.to(logits.dtype), logsumexp))
    outs, logsumexps = zip(*parts, strict=True)
    return torch.cat(outs, dim=-2), torch.cat(logsumexps, dim=-1)


def plain_math_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, like `AttentionBackend.attend_backward`."""
    grad, q, k, v, out = (x.to(logsumexp.dtype) for x in (grad, q, k, v, out))
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    scale, delta = q.shape[-1] ** -0.5, (grad * out).sum(-1, keepdim=True)
    for rows in _row_blocks(q, k):
        weights = (_logits(q, k, rows, causal) - logsumexp[..., rows].unsqueeze(-1)).exp()
        grad_logits = weights * (grad[..., rows, :] @ v.mT - delta[..., rows, :]) * scale
        grad_q[..., rows, :] = grad_logits @ k
        grad_k += grad_logits.mT @ q[..., rows, :]
        grad_v += weights.mT @ grad[..., rows, :]
    return grad_q, grad_k, grad_v


def _row_blocks(q: Tensor, k: Tensor) -> list[slice]:
    """Return the blocks of queries that plain math computes at a time."""
    length = q.shape[-2]
    size = max(1, _LOGITS_AT_ONCE // max(1, q.shape[0] * q.shape[1] * k.shape[-2]))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _logits(q: Tensor, k: Tensor, rows: slice, causal: bool) -> Tensor:
    """Return the logits of a block of queries in float32 or wider; logits of hidden keys are -inf."""
    exact = torch.promote_types(q.dtype, torch.float32)
    logits = q[..., rows, :].to(exact) @ k.to(exact).mT * q.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1 + rows.start)
        logits.masked_fill_(hidden, -math.inf)
    return logits
