"""What an output draws on, token by token: exact shares behind the encoder, gradients before it, tokens left out."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import LayerNorm

from longvit.explanation.model_output import ModelOutput

_HEAD_STEPS = 8  # exact for a linear head, which needs one; a risk of a few bins is smooth


def token_contributions(explained: ModelOutput, x_LD: Float[Tensor, "L D"]) -> Float[Tensor, " L"]:
    """Each token's share of the output, at the encoder's output, where a token knows its surroundings.

    The slide's vector is a weighted mean of the tokens, and the head is linear in it, so the shares are exact: they add
    up to the output minus that for the mean slide of the training (completeness, Sundararajan et al. 2017,
    arXiv:1703.01365). Where the output bends, as a discrete-time risk does, its gradient is averaged on the way between
    the two, and they still add up. Weights of attention pooling and the spread by which a norm divides count as given.

    Args:
        explained: The output; the slide's vector is made of the tokens, not of a class token.
        x_LD: One slide as `encoder.embed` gives it, without padding.
    """
    model, encoder = explained.model, explained.model.required_encoder
    with torch.no_grad():
        tokens_LD = encoder.encode(x_LD[None]).tokens_BLD[0]
        weights_L = explained.pooled(tokens_LD)
        if model.attention is None and isinstance(norm := encoder.pooling.norm, LayerNorm):
            tokens_LD = _normed_as_one(norm, tokens_LD)
    mean_D, slide_D = model.head.mean, weights_L @ tokens_LD
    gradient_D = _mean_gradient(explained.of_slide, mean_D, slide_D, steps=_HEAD_STEPS)
    return weights_L * ((tokens_LD - mean_D) @ gradient_D)


def gradient_times_input(explained: ModelOutput, x_LD: Float[Tensor, "L D"]) -> Float[Tensor, " L"]:
    """Gradient of the output times each token's distance from the mean token, where tokens enter the blocks.

    To first order, what the output would lose if the token became the slide's average one.

    Args:
        explained: The output.
        x_LD: One slide as `encoder.embed` gives it, without padding.
    """
    return (_gradient_at(explained, x_LD) * (x_LD - x_LD.mean(0))).sum(-1)


def integrated_gradients(explained: ModelOutput, x_LD: Float[Tensor, "L D"], *, steps: int = 16) -> Float[Tensor, " L"]:
    """Gradients along the straight way from a slide of average tokens to the slide (Sundararajan et al. 2017, eq. 1).

    The scores add up to the output minus that for the slide of average tokens. The baseline is the mean token and not
    zero, because no slide has tokens near zero: their norm makes noise large there.

    Args:
        explained: The output.
        x_LD: One slide as `encoder.embed` gives it, without padding.
        steps: Gradients along the way, at the nodes of Gauss and Legendre.
    """
    baseline_LD = x_LD.mean(0).expand_as(x_LD)
    return (_mean_gradient(explained, baseline_LD, x_LD, steps) * (x_LD - baseline_LD)).sum(-1)


@torch.no_grad()
def occlusion(
    explained: ModelOutput, x_LD: Float[Tensor, "L D"], rc_L2: Int64[Tensor, "L 2"], *, side: int = 4
) -> Float[Tensor, " L"]:
    """What the output loses when a square of tokens is taken out of the sequence, for each square of the slide.

    Slow, one pass for each square, and honest: nothing is assumed of the model.

    Args:
        explained: The output.
        x_LD: One slide as `encoder.embed` gives it, without padding.
        rc_L2: Row and column of each token; they lie in two squares or more.
        side: Side of a square, tokens; all its tokens have one score.
    """
    square_L = squares(rc_L2, side)
    whole = explained(x_LD)
    lost = torch.stack([whole - explained(x_LD[square_L != square]) for square in range(int(square_L.max()) + 1)])
    return lost[square_L]


def squares(rc_L2: Int64[Tensor, "L 2"], side: int) -> Int64[Tensor, " L"]:
    """Number of the square of `side` x `side` tokens that each token lies in; squares without tokens have none."""
    return torch.unique(rc_L2 // side, dim=0, return_inverse=True)[1]


def _mean_gradient(function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Mean gradient on the straight way between two points, at the nodes of Gauss and Legendre."""
    total = torch.zeros_like(end)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total += float(weight) * _gradient_at(function, torch.lerp(start, end, float(node)))
    return total


def _gradient_at(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    point = point.detach().requires_grad_()
    return torch.autograd.grad(function(point), point)[0]


def _normed_as_one(norm: LayerNorm, tokens_LD: Tensor) -> Tensor:
    """Tokens whose mean is what the norm makes of the tokens' mean: each is divided by that one's spread."""
    spread = (tokens_LD.mean(0).var(correction=0) + norm.eps).sqrt()
    return (tokens_LD - tokens_LD.mean(-1, keepdim=True)) / spread * norm.weight + norm.bias
