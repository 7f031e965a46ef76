"""Contribution of each token to an output: exact shares after the encoder, gradients before it, and occlusion."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import LayerNorm

from longvit.explanation.model_output import ModelOutput

_HEAD_STEPS = 8  # exact for a linear head, which needs one step; a risk of a few bins is smooth


def token_contributions(explained: ModelOutput, x_LD: Float[Tensor, "L D"]) -> Float[Tensor, " L"]:
    """Return each token's share of the output, measured after the encoder, where a token includes its context.

    The slide's vector is a weighted mean of the tokens, and the head is linear in it, so the shares are exact. They add
    up to the output minus the output for the mean slide of the training (completeness, Sundararajan et al. 2017,
    arXiv:1703.01365). For a nonlinear output, like a discrete-time risk, the gradient is averaged on the line between
    the two slides, and the shares still add up. Weights of attention pooling and the spread by which a norm divides are
    held constant.

    Args:
        explained: Output to explain; the slide's vector must be a mean of tokens, not a class token.
        x_LD: One slide, embedded by `encoder.embed`, without padding.
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
    """Return the output's gradient times each token's distance from the mean token, at the input of the blocks.

    To first order, this is the loss of output if the token became the slide's mean token.

    Args:
        explained: Output to explain.
        x_LD: One slide, embedded by `encoder.embed`, without padding.
    """
    return (_gradient_at(explained, x_LD) * (x_LD - x_LD.mean(0))).sum(-1)


def integrated_gradients(explained: ModelOutput, x_LD: Float[Tensor, "L D"], *, steps: int = 16) -> Float[Tensor, " L"]:
    """Return gradients along the line from a slide of mean tokens to the slide (Sundararajan et al. 2017, eq. 1).

    The scores add up to the output minus the output for the slide of mean tokens. The baseline is the mean token and
    not zero, because no slide has tokens near zero: the norm would amplify noise there.

    Args:
        explained: Output to explain.
        x_LD: One slide, embedded by `encoder.embed`, without padding.
        steps: Number of gradients along the line, at Gauss-Legendre nodes.
    """
    baseline_LD = x_LD.mean(0).expand_as(x_LD)
    return (_mean_gradient(explained, baseline_LD, x_LD, steps) * (x_LD - baseline_LD)).sum(-1)


@torch.no_grad()
def occlusion(
    explained: ModelOutput, x_LD: Float[Tensor, "L D"], rc_L2: Int64[Tensor, "L 2"], *, side: int = 4
) -> Float[Tensor, " L"]:
    """Return the loss of output if a square of tokens is taken out of the sequence, for each square of the slide.

    It is slow, with one pass per square, and assumes nothing about the model.

    Args:
        explained: Output to explain.
        x_LD: One slide, embedded by `encoder.embed`, without padding.
        rc_L2: Row and column of each token; they must be in two squares or more.
        side: Side of a square, tokens; all tokens of a square have the same score.
    """
    square_L = squares(rc_L2, side)
    whole = explained(x_LD)
    lost = torch.stack([whole - explained(x_LD[square_L != square]) for square in range(int(square_L.max()) + 1)])
    return lost[square_L]


def squares(rc_L2: Int64[Tensor, "L 2"], side: int) -> Int64[Tensor, " L"]:
    """Return the number of each token's square of `side` x `side` tokens; squares without tokens have no number."""
    return torch.unique(rc_L2 // side, dim=0, return_inverse=True)[1]


def _mean_gradient(function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Return the mean gradient on the line between two points, at Gauss-Legendre nodes."""
    total = torch.zeros_like(end)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total += float(weight) * _gradient_at(function, torch.lerp(start, end, float(node)))
    return total


def _gradient_at(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    point = point.detach().requires_grad_()
    return torch.autograd.grad(function(point), point)[0]


def _normed_as_one(norm: LayerNorm, tokens_LD: Tensor) -> Tensor:
    """Return tokens whose mean equals the norm of the tokens' mean: each is divided by the spread of that mean."""
    spread = (tokens_LD.mean(0).var(correction=0) + norm.eps).sqrt()
    return (tokens_LD - tokens_LD.mean(-1, keepdim=True)) / spread * norm.weight + norm.bias
