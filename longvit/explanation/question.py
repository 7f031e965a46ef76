"""Prediction of a sequence of slides, the output that is explained, and the mean of all models' maps of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from longvit.config import ExplainConfig, Method
from longvit.encoding.slide import embed_slide
from longvit.explanation.colour import ranked
from longvit.explanation.methods import ExplainedSlide, of_encoder, score_maps
from longvit.explanation.model_output import ModelOutput
from longvit.explanation.models import ExplainedModels
from longvit.explanation.result import ScoreMap
from longvit.model.outputs import require_finite
from longvit.model.predictor import SlideModel
from longvit.tokens.joined import JoinedPieces
from preprocessing.errors import ConfigError

_THREADS = 2  # threads that read and decode tiles


class EmbeddedTokens:
    """Embedded tokens of a sequence, for one model at a time: a slide of a million tokens takes 1.6 GB.

    They are embedded again for each model, unless all models have the same encoder.
    """

    def __init__(self, models: ExplainedModels, pieces: JoinedPieces) -> None:
        self._once, self.pieces = models.shares_encoder, pieces
        self._x_LD: Tensor | None = None

    def of(self, model: SlideModel) -> Float[Tensor, "L D"]:
        """Return the tokens as they enter the blocks of the model's encoder, on the model's device.

        Raises:
            StoreError: A tile is missing or damaged.
        """
        x_LD, self._x_LD = self._x_LD if self._once else None, None
        if x_LD is None:
            x_LD = embed_slide(model.required_encoder, self.pieces, _THREADS)[0]
            x_LD = x_LD.clone()  # out of inference mode, to allow gradients
        if self._once:
            self._x_LD = x_LD
        return x_LD


@dataclass(frozen=True)
class Question:
    """Output of models for one sequence of slides, which is to be explained."""

    models: ExplainedModels
    """Models, of which the mean is explained."""
    tokens: EmbeddedTokens
    """Tokens of the sequence."""
    prediction: dict[str, float]
    """`p_<class>` of each class, or `risk`, as in predictions.csv."""
    output: int
    """Index of the class; 0 for survival."""

    @property
    def target(self) -> str:
        """Name of the class, or `risk`."""
        return ModelOutput(self.models.first, self.output).target

    def of_each_model(self) -> Iterator[ExplainedSlide]:
        """Yield the sequence as each model reads it."""
        rc_L2 = self.tokens.pieces.rc_in_sequence()
        for model in self.models.models:
            x_LD = self.tokens.of(model)
            yield ExplainedSlide(ModelOutput(model, self.output), x_LD, rc_L2.to(x_LD.device))
            del x_LD  # before the next model's tokens are made


@torch.no_grad()
def ask(models: ExplainedModels, pieces: JoinedPieces, target: str | None, name: str) -> Question:
    """Return the models' prediction of a sequence, and the output to explain.

    Args:
        models: Models in evaluation mode, on their device.
        pieces: Tokens of the sequence.
        target: Class to explain; default: the class with the highest probability.
        name: Name of the sequence, for errors.

    Raises:
        StoreError: A tile is missing or damaged.
        CheckpointError: An output is not finite.
    """
    tokens, outputs = EmbeddedTokens(models, pieces), []
    for model in models.models:
        outputs.append(model.head(ModelOutput(model).slide(tokens.of(model))[None])[0].float().cpu())
        require_finite(outputs[-1], name)
    prediction, classes = models.prediction(outputs), models.first.classes
    chosen = target or max(classes, key=lambda one: prediction[f"p_{one}"], default="")
    return Question(models, tokens, prediction, classes.index(chosen) if classes else 0)


def require_target(model: SlideModel, target: str | None) -> None:
    """Refuse a target that the model does not have.

    Raises:
        ConfigError: The model does not have the class.
    """
    if target is not None and target not in model.classes:
        raise ConfigError(
            f"the model has no class {target}",
            where="target",
            fix=f"choose from {', '.join(model.classes)}" if model.classes else "leave target out: it predicts a risk",
        )


def mean_maps(question: Question, config: ExplainConfig) -> tuple[ScoreMap, ...]:
    """Return all requested maps of a sequence: the mean of the models' maps, or its ranks.

    Signed scores are first put in the unit of the prediction. The risks of an ensemble are in standard deviations of
    each model's training patients (`ensemble_row`), because else the model with the widest spread dominates the mean.
    So contributions add up to the ensemble's risk, as they do for one model; for classes, to the mean logit.
    """
    models = question.models
    known: dict[Method, list[ScoreMap]] = {}
    total: list[ScoreMap] = []
    for place, slide in enumerate(question.of_each_model()):
        of_methods = score_maps(slide, config, known)
        known = of_encoder(of_methods, models.models[place]) if models.shares_encoder else {}
        maps = [_scaled(one, models.unit(place)) for of_method in of_methods.values() for one in of_method]
        total = (
            [replace(a, scores=a.scores + b.scores) for a, b in zip(total or maps, maps, strict=True)]
            if total
            else maps
        )
    return tuple(_finished(one, models, ranks=config.rank) for one in total)


def _scaled(one: ScoreMap, unit: float) -> ScoreMap:
    return replace(one, scores=one.scores * unit) if one.signed else one


def _finished(one: ScoreMap, models: ExplainedModels, *, ranks: bool) -> ScoreMap:
    """Return a mean from a sum of maps, with its meaning."""
    count = len(models.models)
    scores, meaning = one.scores / count, one.meaning
    if models.ensemble:
        meaning += f"; mean of {count} folds"
        meaning += ", in standard deviations of risk" if models.scales and one.signed else ""
    if ranks:
        scores, meaning = ranked(scores, one.signed), f"rank of: {meaning}"
    return replace(one, scores=scores, meaning=meaning)
