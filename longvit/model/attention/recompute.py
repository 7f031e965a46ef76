"""Memory for arithmetic: layers of single tokens in pieces, and projections of a few heads at a time, computed twice.

On long sequences attention takes nearly all of the time, and everything around it most of the memory. So its output and
logsumexp are kept, and what surrounds it is computed again in the backward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from longvit.model.attention.dilated import Plan, attend_branches, attend_branches_backward

Project = Callable[[Tensor, slice], tuple[Tensor, Tensor, Tensor]]
"""(x_BLD, some of the heads) -> their q, k and v, each (B, L, H, K)."""


def piece_tokens(tokens_at_once: int, x_BLD: Tensor, weight: Tensor) -> int:
    """Return how many tokens to take at once: a quarter for a stream wider than the weights.

    Each piece of such a stream is in memory in both types; with a quarter the whole takes no more than a tenth more
    than a stream of the narrower type (`tests/benchmarks/precision.md`).
    """
    return tokens_at_once if x_BLD.dtype == weight.dtype else max(1, tokens_at_once // 4)


def in_pieces(
    function: Callable[[Tensor], Tensor],
    x_BLD: Shaped[Tensor, "B L D"],
    tokens_at_once: int,
    *,
    recompute: bool,
    overwrite: bool = False,
) -> Float[Tensor, "B L E"]:
    """Apply a function that takes each token by itself, to a piece of the sequence at a time.

    Args:
        function: The function; it draws no random numbers, and keeps batch and length.
        x_BLD: Its argument.
        tokens_at_once: Tokens in a piece.
        recompute: Whether the backward pass computes it again, piece by piece. Where gradients are wanted and this is
            not, pieces would save nothing, and all is done at once.
        overwrite: Whether the result, of the same shape, may take the memory of `x_BLD` where no gradients are wanted.
    """
    if torch.is_grad_enabled():
        if not recompute:
            return function(x_BLD)
        pieces = x_BLD.split(_piece_length(x_BLD, tokens_at_once), dim=1)
        return torch.cat([checkpoint(function, x, use_reentrant=False, preserve_rng_state=False) for x in pieces], 1)
    like = function(x_BLD[:, :0])
    out_BLE = x_BLD if overwrite else like.new_empty(*x_BLD.shape[:2], like.shape[-1])
    for tokens in _pieces(x_BLD, tokens_at_once):
        out_BLE[:, tokens] = function(x_BLD[:, tokens])
    return out_BLE


def projected_attention(
    project: Project,
    weights: tuple[Tensor, ...],
    x_BLD: Float[Tensor, "B L D"],
    plan: Plan,
    *,
    causal: bool,
    tokens_at_once: int,
) -> Float[Tensor, "B L D"]:
    """Dilated attention whose q, k and v are never all there: `dilated_attention` of what `project` gives.

    Args:
        project: The projections; each token by itself, without random numbers.
        weights: Every parameter that `project` uses.
        x_BLD: What is projected.
        plan: The calls of the primitive, from `plan_calls`; its chunks of heads are projected one after another.
        causal: Whether a token sees only those up to itself.
        tokens_at_once: Tokens projected at a time.
    """
    return _ProjectedAttention.apply(project, plan, causal, tokens_at_once, x_BLD, *weights)


class _ProjectedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        project: Project,
        plan: Plan,
        causal: bool,
        tokens_at_once: int,
        x_BLD: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        like = project(x_BLD[:, :0], slice(0, 1))[0]
        out_BLHK = like.new_empty((*x_BLD.shape[:2], plan[-1][0].stop, like.shape[-1]))
        logsumexps, wanted = [], any(ctx.needs_input_grad)
        for heads, groups in plan:
            qkv = _projected(project, x_BLD, heads, tokens_at_once)
            logsumexp_BLh = attend_branches(*qkv, groups, causal, out_BLHK[:, :, heads])
            del qkv  # before those of the next heads
            logsumexps += [logsumexp_BLh] if wanted else []
        ctx.project, ctx.plan, ctx.causal, ctx.tokens_at_once = project, plan, causal, tokens_at_once
        device = x_BLD.device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        if wanted:
            ctx.save_for_backward(out_BLHK, torch.cat(logsumexps, dim=2), x_BLD, *weights)
        return out_BLHK.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLD: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        out_BLHK, logsumexp_BLH, x_BLD, *weights = ctx.saved_tensors
        grad_BLHK = grad_BLD.view(out_BLHK.shape)
        grads = (
            torch.zeros_like(x_BLD),
            {weight: torch.zeros_like(weight) for weight in weights if weight.requires_grad},
        )
        device, dtype, enabled = ctx.autocast
        with torch.autocast(device, dtype, enabled):
            for heads, groups in ctx.plan:
                qkv = _projected(ctx.project, x_BLD, heads, ctx.tokens_at_once)
                saved = (*qkv, out_BLHK[:, :, heads], logsumexp_BLH[:, :, heads])
                grad_qkv = attend_branches_backward(grad_BLHK[:, :, heads], saved, groups, ctx.causal)
                del qkv, saved  # before more memory is needed
                project = partial(ctx.project, heads=heads)
                _backward_in_pieces(project, x_BLD, grad_qkv, grads, ctx.tokens_at_once)
        grad_x_BLD, of_weight = grads
        return None, None, None, None, grad_x_BLD, *(of_weight.get(weight) for weight in weights)


def _projected(project: Project, x_BLD: Tensor, heads: slice, tokens_at_once: int) -> tuple[Tensor, ...]:
    """q, k and v of some heads, laid out head by head: what the kernels read fastest."""
    rows, _, count, width = (like := project(x_BLD[:, :0], heads)[0]).shape
    whole = tuple(like.new_empty((rows, count, x_BLD.shape[1], width)).transpose(1, 2) for _ in range(3))
    for tokens in _pieces(x_BLD, tokens_at_once):
        for all_BLHK, part_BLHK in zip(whole, project(x_BLD[:, tokens], heads), strict=True):
            all_BLHK[:, tokens] = part_BLHK
    return whole


def _backward_in_pieces(
    project: Callable[[Tensor], tuple[Tensor, ...]],
    x_BLD: Tensor,
    grad_qkv: Sequence[Tensor],
    grads: tuple[Tensor, dict[Tensor, Tensor]],
    tokens_at_once: int,
) -> None:
    """Project again, and add to `grads` what reaches the tokens and each weight."""
    grad_x_BLD, of_weight = grads
    for tokens in _pieces(x_BLD, tokens_at_once):
        with torch.enable_grad():
            piece_BLD = x_BLD[:, tokens].detach().requires_grad_()
            parts = project(piece_BLD)
        cotangents = [grad[:, tokens].to(part.dtype) for grad, part in zip(grad_qkv, parts, strict=True)]
        grad_piece_BLD, *more = torch.autograd.grad(parts, (piece_BLD, *of_weight), cotangents)
        grad_x_BLD[:, tokens] += grad_piece_BLD
        for total, grad in zip(of_weight.values(), more, strict=True):
            total += grad


def _pieces(x_BLD: Tensor, tokens_at_once: int) -> Iterator[slice]:
    """Parts of the sequence of about `tokens_at_once` tokens, all rows together."""
    size = _piece_length(x_BLD, tokens_at_once)
    return (slice(start, start + size) for start in range(0, x_BLD.shape[1], size))


def _piece_length(x_BLD: Tensor, tokens_at_once: int) -> int:
    return max(1, tokens_at_once // max(1, len(x_BLD)))
