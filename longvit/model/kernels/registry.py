"""Choice of the kernel for LongNet's one primitive, `attend`, and its backward, on the current machine.

A backend consists of a pair of functions, which are in a module of their own, and a condition on the tensors. Add
further backends to `BACKENDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longvit.model.kernels.math import plain_math, plain_math_backward
from longvit.model.kernels.torch_cpu import flash_cpu, flash_cpu_backward
from longvit.model.kernels.torch_cuda import (
    efficient_cuda,
    efficient_cuda_backward,
    flash_cuda,
    flash_cuda_backward,
)


class TensorKind(NamedTuple):
    """Properties of queries that decide the choice of a backend."""

    device: str
    """Type of the device: cpu, cuda, mps, ..."""
    capability: tuple[int, int]
    """Compute capability of an NVIDIA device; (0, 0) elsewhere."""
    dtype: torch.dtype
    """Type of queries, keys and values."""
    width: int
    """Width of a head."""


@dataclass(frozen=True)
class AttentionBackend:
    """Implementation of the primitive, on (batch, heads, tokens, head width); logsumexp lacks the last axis."""

    name: str
    """Name in tests and error messages."""
    takes: Callable[[TensorKind], bool]
    """Function that returns True for tensors that the backend can compute on."""
    attend: Callable[..., tuple[Tensor, Tensor]]
    """Function (q, k, v, *, causal) -> (out, logsumexp); logsumexp is natural, in float32 or wider."""
    attend_backward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """Function (grad_out, q, k, v, out, logsumexp, *, causal) -> (grad_q, grad_k, grad_v)."""


def attend(
    q: Float[Tensor, "N H L K"], k: Float[Tensor, "N H M K"], v: Float[Tensor, "N H M K"], *, causal: bool = False
) -> tuple[Float[Tensor, "N H L K"], Float[Tensor, "N H L"]]:
    """Return softmax attention and the logarithms of its denominators, by the fastest backend for these tensors.

    Logits are scaled by K ** -0.5.

    Args:
        q: Queries, the last axis contiguous.
        k: Keys, the last axis contiguous; there is at least one.
        v: Values, the last axis contiguous.
        causal: Whether later keys are hidden; queries and keys are then the same tokens.

    Returns:
        Output in the dtype of `q`, or wider, and logsumexp in float32, or wider.
    """
    return choose(kind_of(q)).attend(q, k, v, causal=causal)


def attend_backward(
    grad_out: Float[Tensor, "N H L K"],
    q: Float[Tensor, "N H L K"],
    k: Float[Tensor, "N H M K"],
    v: Float[Tensor, "N H M K"],
    out: Float[Tensor, "N H L K"],
    logsumexp: Float[Tensor, "N H L"],
    *,
    causal: bool = False,
) -> tuple[Float[Tensor, "N H L K"], Float[Tensor, "N H M K"], Float[Tensor, "N H M K"]]:
    """Return the gradients of queries, keys and values.

    `out` and `logsumexp` may belong to a softmax over more keys than `k`. The result is then the share of these keys in
    the gradient, which makes merged branches cheap (Dao et al. 2022, arXiv:2205.14135, eq. 4).

    Args:
        grad_out: Gradient of the output.
        q: Queries, as in `attend`.
        k: Keys.
        v: Values.
        out: Output of `attend`, optionally merged with the output for other keys.
        logsumexp: Logsumexp of `attend`, merged like `out`.
        causal: Whether later keys are hidden.
    """
    return choose(kind_of(q)).attend_backward(grad_out, q, k, v, out, logsumexp, causal=causal)


def kind_of(q: Tensor) -> TensorKind:
    """Return the properties of queries `q` that decide the choice of a backend."""
    capability = torch.cuda.get_device_capability(q.device) if q.device.type == "cuda" else (0, 0)
    return TensorKind(q.device.type, capability, q.dtype, q.shape[-1])


def choose(kind: TensorKind) -> AttentionBackend:
    """Return the fastest backend that takes such tensors; plain math takes all tensors."""
    return next(backend for backend in BACKENDS if backend.takes(kind))


FLASH_CUDA = AttentionBackend(
    "flash_cuda",
    lambda kind: (
        kind.device == "cuda"
        and kind.capability >= (8, 0)
        and kind.dtype in (torch.float16, torch.bfloat16)
        and kind.width % 8 == 0
        and kind.width <= 256
    ),
    flash_cuda,
    flash_cuda_backward,
)
"""FlashAttention 2 of torch: half precision, NVIDIA Ampere and later."""
EFFICIENT_CUDA = AttentionBackend(
    "efficient_cuda",
    lambda kind: (
        kind.device == "cuda"
        and kind.width % (4 if kind.dtype == torch.float32 else 8) == 0
        and (
            kind.dtype in (torch.float32, torch.float16) or (kind.dtype == torch.bfloat16 and kind.capability >= (8, 0))
        )
    ),
    efficient_cuda,
    efficient_cuda_backward,
)
"""Memory-efficient attention of torch, also in float32: NVIDIA Maxwell and later."""
FLASH_CPU = AttentionBackend("flash_cpu", lambda kind: kind.device == "cpu", flash_cpu, flash_cpu_backward)
"""Blocked kernel of torch: linear in memory, any head width."""
MATH = AttentionBackend("math", lambda kind: True, plain_math, plain_math_backward)
"""Plain matrix products, some queries at a time: any device (MPS has no other), and the reference for all backends."""

BACKENDS = (FLASH_CUDA, EFFICIENT_CUDA, FLASH_CPU, MATH)
"""Backends in the order of preference; put a new backend before the slower backends."""
