"""Less memory for more arithmetic: layers of single tokens in pieces, and projections of a few heads at a time.

On long sequences attention takes nearly all of the time, and the layers around it take most of the memory. So the
output and logsumexp of attention are kept, and the layers around it are computed again in the backward pass.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from longvit.model.attention.dilated import QKV

Project = Callable[[Tensor, slice, int], tuple[Tensor, Tensor, Tensor]]
"""Function (x_BLD, slice of the heads, first token) -> q, k and v of these heads, each (B, L, H, K)."""


def piece_tokens(tokens_at_once: int, x_BLD: Tensor, weight: Tensor) -> int:
    """Return the number of tokens to take at once: a quarter of `tokens_at_once` for a stream wider than the weights.

    Each piece of such a stream is in memory in both types. With a quarter, the total is at most a tenth larger than for
    a stream of the narrower type (`tests/benchmarks/precision.md`).
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
    """Apply a function that treats each token by itself, to one piece of the sequence at a time.

    Args:
        function: The function; it draws no random numbers, and keeps batch and length.
        x_BLD: Argument of the function.
        tokens_at_once: Tokens in a piece.
        recompute: Whether the backward pass computes the function again, piece by piece. If gradients are needed and
            this is False, pieces would save no memory, and the whole sequence is computed at once.
        overwrite: Whether the result, of the same shape, may take the memory of `x_BLD` if no gradients are needed.
    """
    if torch.is_grad_enabled():
        if not recompute:
            return function(x_BLD)
        pieces = x_BLD.split(_piece_length(x_BLD, tokens_at_once), dim=1)
        return torch.cat([checkpoint(function, x, use_reentrant=False, preserve_rng_state=False) for x in pieces], 1)
    like = function(x_BLD[:, :0])
    out_BLE = x_BLD if overwrite else like.new_empty(*x_BLD.shape[:2], like.shape[-1])
    for tokens in token_slices(x_BLD, tokens_at_once):
        out_BLE[:, tokens] = function(x_BLD[:, tokens])
    return out_BLE


class ProjectedQKV(QKV):
    """Queries, keys and values that are never in memory as a whole: projected for a few heads, and again in backward.

    They are made from the tokens x_BLD and every weight that `project` uses, in this order.

    Args:
        project: The projections; they treat each token by itself, by its place, and draw no random numbers.
        tokens_at_once: Tokens projected at a time.
        device: Type of the device; the backward pass projects under the autocast that is active there now.
    """

    def __init__(self, project: Project, tokens_at_once: int, device: str) -> None:
        self.project, self.tokens_at_once = project, tokens_at_once
        self.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

    def empty(self, heads: int, x_BLD: Tensor, *weights: Tensor) -> Float[Tensor, "B L H K"]:
        """Return memory for the output, in the type of the projections."""
        like = self.project(x_BLD[:, :0], slice(0, 1), 0)[0]
        return like.new_empty((*x_BLD.shape[:2], heads, like.shape[-1]))

    def of_heads(self, heads: slice, x_BLD: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v of some heads, laid out head by head, which the kernels read fastest."""
        with torch.autocast(*self.autocast):
            rows, _, count, width = (like := self.project(x_BLD[:, :0], heads, 0)[0]).shape
            empty = lambda: like.new_empty((rows, count, x_BLD.shape[1], width)).transpose(1, 2)
            whole = empty(), empty(), empty()
            for tokens in token_slices(x_BLD, self.tokens_at_once):
                for all_BLHK, part_BLHK in zip(whole, self.project(x_BLD[:, tokens], heads, tokens.start), strict=True):
                    all_BLHK[:, tokens] = part_BLHK
        return whole

    def add_gradients_(
        self, grads: Sequence[Tensor | None], grad_qkv: Sequence[Tensor], heads: slice, x_BLD: Tensor, *weights: Tensor
    ) -> None:
        """Project again, and add the gradients of the tokens and of each weight."""
        for tokens in token_slices(x_BLD, self.tokens_at_once):
            with torch.autocast(*self.autocast):
                with torch.enable_grad():
                    piece_BLD = x_BLD[:, tokens].detach().requires_grad_()
                    parts = self.project(piece_BLD, heads, tokens.start)
                cotangents = [grad[:, tokens].to(part.dtype) for grad, part in zip(grad_qkv, parts, strict=True)]
                inputs, wanted = (piece_BLD, *weights), [(i, grad) for i, grad in enumerate(grads) if grad is not None]
                found = torch.autograd.grad(parts, [inputs[i] for i, _ in wanted], cotangents)
            for (i, grad), more in zip(wanted, found, strict=True):
                (grad if i else grad[:, tokens]).add_(more)


def token_slices(x_BLD: Tensor, tokens_at_once: int) -> Iterator[slice]:
    """Return parts of the sequence of about `tokens_at_once` tokens, all rows together."""
    size = _piece_length(x_BLD, tokens_at_once)
    return (slice(start, start + size) for start in range(0, x_BLD.shape[1], size))


def _piece_length(x_BLD: Tensor, tokens_at_once: int) -> int:
    return max(1, tokens_at_once // max(1, len(x_BLD)))
