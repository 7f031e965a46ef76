"""Methods by name, each of which makes score maps from a model and a slide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longvit.config import ExplainConfig, Method
from longvit.explanation.attention import attention_rollout, received_attention
from longvit.explanation.attribution import (
    gradient_times_input,
    integrated_gradients,
    occlusion,
    token_contributions,
)
from longvit.explanation.model_output import ModelOutput
from longvit.explanation.result import ScoreMap
from longvit.model.predictor import SlideModel
from preprocessing.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class ExplainedSlide:
    """Slide and model output that are explained."""

    explained: ModelOutput
    """Output to explain."""
    x_LD: Float[Tensor, "L D"]
    """Embedded tokens of the slide."""
    rc_L2: Int64[Tensor, "L 2"]
    """Row and column of each token."""


def settle_methods(model: SlideModel, config: ExplainConfig) -> ExplainConfig:
    """Return the settings with methods that can explain the model: the requested methods, or the default methods.

    Raises:
        CheckpointError: The model has no encoder, `contribution` is requested for a model that reads a class token, or
            `pooling` for a model without attention pooling.
    """
    if model.encoder is None:
        raise CheckpointError(
            "this is a baseline of ready-made vectors, and has no tokens to explain",
            where=config.model,
            fix="give a fold's model.safetensors of a LongViT",
        )
    by_class = model.attention is None and model.encoder.config.pooling == "class"
    if config.methods is None:
        truest = "integrated_gradients" if by_class else "contribution"
        return config.model_copy(update={"methods": (truest, "received", "rollout")})
    for method, wrong, reason in (
        ("contribution", by_class, "the slide's vector is a class token, in which other tokens have no exact shares"),
        ("pooling", model.attention is None, "the model has no attention pooling"),
    ):
        if method in config.methods and wrong:
            raise CheckpointError(
                f"{method} cannot explain this model: {reason}",
                where=config.model,
                fix="name other methods: --methods received rollout integrated_gradients",
            )
    return config


def require_squares(rc_L2: Int64[Tensor, "L 2"], config: ExplainConfig) -> None:
    """Refuse a slide within a single square, before anything is computed, if squares are to be removed.

    Raises:
        ConfigError: All tokens are in one square.
    """
    side, methods = config.occlusion_side, config.methods or ()
    if ("occlusion" in methods or config.faithfulness) and len(torch.unique(rc_L2 // side, dim=0)) == 1:
        raise ConfigError(
            f"one square of {side} x {side} tokens contains the whole slide",
            where="occlusion_side",
            fix="set a smaller occlusion_side",
        )


def score_maps(
    question: ExplainedSlide, config: ExplainConfig, known: Mapping[Method, list[ScoreMap]] | None = None
) -> dict[Method, list[ScoreMap]]:
    """Return the maps of each method in turn, computed unless they are known; the map over all layers is the first."""
    known = known or {}
    return {one: known[one] if one in known else METHODS[one](question, config) for one in config.methods or ()}


def of_encoder(maps: Mapping[Method, list[ScoreMap]], model: SlideModel) -> dict[Method, list[ScoreMap]]:
    """Return the maps that depend on the encoder alone, and not on the head."""
    own = {"received"} | ({"rollout"} if model.attention is None else set())
    return {method: of_method for method, of_method in maps.items() if method in own}


def _contribution(question: ExplainedSlide, config: ExplainConfig) -> list[ScoreMap]:
    scores = token_contributions(question.explained, question.x_LD)
    meaning = f"share of the {question.explained.quantity} against the mean slide; shares add up"
    return [_map("contribution", "Contribution", meaning, scores, signed=True)]


def _received(question: ExplainedSlide, config: ExplainConfig) -> list[ScoreMap]:
    layers_NL = received_attention(question.explained.model.required_encoder, question.x_LD)
    meaning = "attention received, 1 being a token's even share"
    return [
        _map("received", "Attention received", f"{meaning}; mean of all layers", layers_NL.mean(0)),
        *(
            _map("received", f"Attention received, layer {layer}", meaning, scores_L, layer=layer)
            for layer, scores_L in enumerate(layers_NL, 1)
        ),
    ]


def _rollout(question: ExplainedSlide, config: ExplainConfig) -> list[ScoreMap]:
    model = question.explained.model
    pooled_L = None if model.attention is None else _pooled(question)
    scores = attention_rollout(model.required_encoder, question.x_LD, pooled_L) * len(question.x_LD)
    meaning = "share of the slide's vector by attention rollout, 1 being a token's even share"
    return [_map("rollout", "Attention rollout", meaning, scores)]


def _pooling(question: ExplainedSlide, config: ExplainConfig) -> list[ScoreMap]:
    meaning = "weight in the slide's vector, 1 being a token's even share"
    return [_map("pooling", "Attention pooling", meaning, _pooled(question) * len(question.x_LD))]


@torch.no_grad()
def _pooled(question: ExplainedSlide) -> Tensor:
    tokens_LD = question.explained.model.required_encoder.encode(question.x_LD[None]).tokens_BLD[0]
    return question.explained.pooled(tokens_LD)


def _gradient(question: ExplainedSlide, config: ExplainConfig) -> list[ScoreMap]:
    scores = gradient_times_input(question.explained, question.x_LD)
    meaning = f"change of the {question.explained.quantity} against the average token, to first order"
    return [_map("gradient", "Gradient x input", meaning, scores, signed=True)]


def _integrated_gradients(question: ExplainedSlide, config: ExplainConfig) -> list[ScoreMap]:
    scores = integrated_gradients(question.explained, question.x_LD, steps=config.gradient_steps)
    meaning = f"share of the {question.explained.quantity} against a slide of average tokens; shares add up"
    return [_map("integrated_gradients", "Integrated gradients", meaning, scores, signed=True)]


def _occlusion(question: ExplainedSlide, config: ExplainConfig) -> list[ScoreMap]:
    side = config.occlusion_side
    scores = occlusion(question.explained, question.x_LD, question.rc_L2, side=side)
    meaning = f"loss of the {question.explained.quantity} without the square of {side} x {side} tokens"
    return [_map("occlusion", "Occlusion", meaning, scores, signed=True)]


def _map(
    method: Method, label: str, meaning: str, scores: Tensor, *, signed: bool = False, layer: int | None = None
) -> ScoreMap:
    key = method if layer is None else f"{method}_layer_{layer:02d}"
    return ScoreMap(key, method, label, meaning, signed, scores.float().cpu().numpy().astype(np.float64), layer)


METHODS: Mapping[Method, Callable[[ExplainedSlide, ExplainConfig], list[ScoreMap]]] = {
    "contribution": _contribution,
    "received": _received,
    "rollout": _rollout,
    "pooling": _pooling,
    "gradient": _gradient,
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
}
"""Function that computes the maps of each method."""
