"""The one primitive of LongNet, `attend`, and its backward: which kernel computes it on which machine.

A backend is one pair of functions and the tensors that it takes; `BACKENDS` is where another is added.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

_MATH_LOGITS = 2**26
"""Logits that plain math holds at a time: 256 MiB in float32."""
_LOGSUMEXP_ALIGNMENT = 32
"""The memory-efficient CUDA kernel fills the queries of a logsumexp up to a multiple of this."""


class Kind(NamedTuple):
    """What a choice of backend depends on."""

    device: str
    """Type of the device: cpu, cuda, mps, ..."""
    capability: tuple[int, int]
    """Compute capability of an NVIDIA device; (0, 0) elsewhere."""
    dtype: torch.dtype
    """Of queries, keys and values."""
    width: int
    """Width of a head."""


@dataclass(frozen=True)
class Backend:
    """One way to compute the primitive, on (batch, heads, tokens, head width); logsumexp lacks the last axis."""

    name: str
    """What tests and error messages call it."""
    takes: Callable[[Kind], bool]
    """Whether it can compute on such tensors."""
    attend: Callable[..., tuple[Tensor, Tensor]]
    """(q, k, v, *, causal) -> (out, logsumexp); logsumexp is natural, and in float32 or wider."""
    attend_backward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """(grad_out, q, k, v, out, logsumexp, *, causal) -> (grad_q, grad_k, grad_v)."""


def attend(
    q: Float[Tensor, "N H L K"], k: Float[Tensor, "N H L K"], v: Float[Tensor, "N H L K"], *, causal: bool = False
) -> tuple[Float[Tensor, "N H L K"], Float[Tensor, "N H L"]]:
    """Softmax attention and the logarithms of its denominators, by the fastest backend for these tensors.

    Logits are scaled by K ** -0.5. Queries and keys are the same tokens: with `causal` each sees those up to itself.

    Args:
        q: Queries, the last axis contiguous.
        k: Keys, the last axis contiguous.
        v: Values, the last axis contiguous.
        causal: Whether later keys are hidden.

    Returns:
        Output in the dtype of `q`, or wider, and logsumexp in float32, or wider.
    """
    return choose(kind_of(q)).attend(q, k, v, causal=causal)


def attend_backward(
    grad_out: Float[Tensor, "N H L K"],
    q: Float[Tensor, "N H L K"],
    k: Float[Tensor, "N H L K"],
    v: Float[Tensor, "N H L K"],
    out: Float[Tensor, "N H L K"],
    logsumexp: Float[Tensor, "N H L"],
    *,
    causal: bool = False,
) -> tuple[Float[Tensor, "N H L K"], Float[Tensor, "N H L K"], Float[Tensor, "N H L K"]]:
    """Gradients of queries, keys and values.

    `out` and `logsumexp` may be those of a softmax over more keys than `k`: the result is then the share that these
    keys have in the gradient, which is what makes merged branches cheap (Dao et al. 2022, arXiv:2205.14135, eq. 4).

    Args:
        grad_out: Gradient of the output.
        q: Queries, as in `attend`.
        k: Keys.
        v: Values.
        out: Output of `attend`, merged with that for other keys or not.
        logsumexp: Logsumexp of `attend`, merged like `out`.
        causal: Whether later keys are hidden.
    """
    return choose(kind_of(q)).attend_backward(grad_out, q, k, v, out, logsumexp, causal=causal)


def kind_of(q: Tensor) -> Kind:
    """What the choice of a backend for queries `q` depends on."""
    capability = torch.cuda.get_device_capability(q.device) if q.device.type == "cuda" else (0, 0)
    return Kind(q.device.type, capability, q.dtype, q.shape[-1])


def choose(kind: Kind) -> Backend:
    """The fastest backend that takes such tensors; plain math takes all."""
    return next(backend for backend in BACKENDS if backend.takes(kind))


def _flash_cpu(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)


def _flash_cpu_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, logsumexp, 0.0, causal
    )


def _flash_cuda(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    out, logsumexp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)
    return out, logsumexp


def _flash_cuda_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    # No sequence is packed, and without dropout the state of its random numbers is not read.
    length, state = q.shape[-2], torch.empty(2, dtype=torch.uint64, device=q.device)
    return torch.ops.aten._scaled_dot_product_flash_attention_backward(
        grad, q, k, v, out, logsumexp.contiguous(), None, None, length, length, 0.0, causal, state, state
    )


def _efficient_cuda(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    out, logsumexp, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal)
    return out, logsumexp[..., : q.shape[-2]]


def _efficient_cuda_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    # The kernel takes the memory of `out` for (batch, tokens, heads, width) unseen, and reads a full logsumexp, in
    # which infinity gives weights of 0.
    out = out.transpose(1, 2).contiguous().transpose(1, 2)
    logsumexp = pad(logsumexp, (0, -logsumexp.shape[-1] % _LOGSUMEXP_ALIGNMENT), value=math.inf)
    state, wanted = torch.empty((), dtype=torch.int64), [True, True, True, False]
    *grads, _ = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
        grad, q, k, v, None, out, logsumexp.contiguous(), state, state, 0.0, wanted, causal
    )
    return tuple(grads)


def _math(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    parts = []
    for rows in _row_blocks(q):
        logits = _logits(q, k, rows, causal)
        logsumexp = logits.logsumexp(-1)
        parts.append(((logits - logsumexp.unsqueeze(-1)).exp() @ v.to(logits.dtype), logsumexp))
    outs, logsumexps = zip(*parts, strict=True)
    return torch.cat(outs, dim=-2), torch.cat(logsumexps, dim=-1)


def _math_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad, q, k, v, out = (x.to(logsumexp.dtype) for x in (grad, q, k, v, out))
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    scale, delta = q.shape[-1] ** -0.5, (grad * out).sum(-1, keepdim=True)
    for rows in _row_blocks(q):
        weights = (_logits(q, k, rows, causal) - logsumexp[..., rows].unsqueeze(-1)).exp()
        grad_logits = weights * (grad[..., rows, :] @ v.mT - delta[..., rows, :]) * scale
        grad_q[..., rows, :] = grad_logits @ k
        grad_k += grad_logits.mT @ q[..., rows, :]
        grad_v += weights.mT @ grad[..., rows, :]
    return grad_q, grad_k, grad_v


def _row_blocks(q: Tensor) -> list[slice]:
    """Queries in blocks that plain math takes at a time."""
    length = q.shape[-2]
    size = max(1, _MATH_LOGITS // max(1, q.shape[0] * q.shape[1] * length))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _logits(q: Tensor, k: Tensor, rows: slice, causal: bool) -> Tensor:
    """Logits of a block of queries in float32 or wider; those of hidden keys are -inf."""
    exact = torch.promote_types(q.dtype, torch.float32)
    logits = q[..., rows, :].to(exact) @ k.to(exact).mT * q.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1 + rows.start)
        logits.masked_fill_(hidden, -math.inf)
    return logits


FLASH_CUDA = Backend(
    "flash_cuda",
    lambda kind: (
        kind.device == "cuda"
        and kind.capability >= (8, 0)
        and kind.dtype in (torch.float16, torch.bfloat16)
        and kind.width % 8 == 0
        and kind.width <= 256
    ),
    _flash_cuda,
    _flash_cuda_backward,
)
"""FlashAttention 2 in torch, half precision, NVIDIA Ampere and later."""
EFFICIENT_CUDA = Backend(
    "efficient_cuda",
    lambda kind: (
        kind.device == "cuda"
        and kind.width % (4 if kind.dtype == torch.float32 else 8) == 0
        and (
            kind.dtype in (torch.float32, torch.float16) or (kind.dtype == torch.bfloat16 and kind.capability >= (8, 0))
        )
    ),
    _efficient_cuda,
    _efficient_cuda_backward,
)
"""Memory-efficient attention in torch, in float32 too: NVIDIA from Maxwell on."""
FLASH_CPU = Backend("flash_cpu", lambda kind: kind.device == "cpu", _flash_cpu, _flash_cpu_backward)
"""torch's own blocked kernel: linear in memory, any head width."""
MATH = Backend("math", lambda kind: True, _math, _math_backward)
"""Plain matrix products, some queries at a time: any device (MPS is left to it), and the oracle of the others."""

BACKENDS = (FLASH_CUDA, EFFICIENT_CUDA, FLASH_CPU, MATH)
"""In the order of preference; another backend is put before those that it outruns."""
