"""Model of encoder, pooling and head: a slide -> class logits or hazards; and the model's file."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, FiniteFloat, PositiveFloat, PositiveInt, ValidationError, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from longvit.config import AnyTask, Task
from longvit.model import LongViT
from longvit.model.checkpoint import MODEL, SavedConfig
from longvit.model.pooling import GatedAttention, mean_pool, varies
from longvit.model.weights import open_weights
from longvit.tasks.task import Statistics
from longvit.tokens.batch import TokenBatch
from longvit.tokens.read import StoreScale
from preprocessing.errors import CheckpointError
from preprocessing.jobs.files import written_whole

Pooling = Literal["encoder", "attention"]
SlideItem = TokenBatch | Tensor
"""Input of a model: a sequence's tokens; or a frozen encoder's output, (1, D) or token by token (1, L, D)."""


_OWN_FIELDS = ("class_weights", "bin_edges")
"""Statistics that are separate fields of a file's settings, as in files of version 0.1.0."""


class SlideHead(nn.Module):
    """Head: standardises representations by the training slides' mean and deviation, then applies one linear layer.

    Mean-pooled tokens of two slides differ little compared with their common mean. The linear probes of MAE and MoCo v3
    standardise them with a batch norm; this head does the same, independent of the batch.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.linear = nn.Linear(width, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def standardise_by(self, representations_BD: Tensor) -> None:
        """Set mean and deviation of the training slides' representations; a constant channel gets deviation 1."""
        mean_D, std_D = representations_BD.mean(dim=0), representations_BD.std(dim=0, correction=0)
        self.mean.copy_(mean_D)
        self.std.copy_(std_D.where(varies(mean_D, std_D), 1.0))

    def forward(self, representations_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """Return the outputs of each representation."""
        return self.linear((representations_BD - self.mean) / self.std)


class SlideModel(nn.Module):
    """Predictor of a slide: LongViT, a pooling of its tokens, and a head.

    Args:
        encoder: The encoder; None for a model of ready-made vectors, such as a baseline's.
        task: The task, which defines the outputs.
        classes: Classes in the order of their probabilities; empty for survival.
        pooling: `encoder` uses the slide's vector as the encoder pools it; `attention` trains a gated attention.
        width: Width of the vectors if there is no encoder.
    """

    width: int
    pooling: Pooling
    statistics: Statistics
    """Statistics of the training patients that the task's loss needs; stored in the file, not used to predict."""

    def __init__(
        self,
        encoder: LongViT | None,
        task: Task,
        classes: tuple[str, ...],
        pooling: Pooling = "encoder",
        width: int | None = None,
    ) -> None:
        super().__init__()
        if encoder is not None:
            width = encoder.config.width
        elif width is None:
            raise ValueError("a model without an encoder needs the width of its vectors")
        self.width = width
        self.encoder, self.task, self.classes, self.pooling = encoder, task, classes, pooling
        self.statistics = {}
        self.attention = GatedAttention(width) if pooling == "attention" else None
        self.head = SlideHead(width, task.outputs(classes))

    @property
    def required_encoder(self) -> LongViT:
        """Return the encoder.

        Raises:
            CheckpointError: There is none.
        """
        if self.encoder is None:
            raise CheckpointError(
                "the model has no encoder: it is of vectors that something else made",
                where="model",
                fix="give a model of `longvit finetune`",
            )
        return self.encoder

    def encode(self, item: SlideItem) -> Tensor:
        """Return the encoder's output for a sequence: vectors (B, D), or tokens (B, L, D) if attention pools them."""
        if isinstance(item, Tensor):
            return item
        encoder = self.required_encoder
        encoded = encoder.encode(encoder.embed(item), item.mask_BL)
        return encoded.slide_BD if self.attention is None else encoded.tokens_BLD

    def pool(self, encoded: Tensor, mask_BL: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B D"]:
        """Return one vector per sequence, from tokens (B, L, D) or from ready vectors (B, D)."""
        if encoded.ndim == 2:
            return encoded
        group = self.encoder.group if self.encoder else None
        if self.attention is None:
            return mean_pool(encoded, mask_BL, group)
        return self.attention(encoded, mask_BL, group)

    def represent(self, item: SlideItem) -> Float[Tensor, "B D"]:
        """Return one vector per sequence, from tokens or from the output of `encode`."""
        return self.pool(self.encode(item), item.mask_BL if isinstance(item, TokenBatch) else None)

    def forward(self, item: SlideItem) -> Float[Tensor, "B O"]:
        """Return the task's outputs, such as logits of the classes or the log hazard."""
        return self.head(self.represent(item))


class _Settings(BaseModel):
    """Settings of a model, stored as metadata of its weights."""

    encoder: SavedConfig | None
    width: PositiveInt
    pooling: Pooling
    classes: tuple[str, ...]
    task: AnyTask
    class_weights: tuple[PositiveFloat, ...] = ()
    bin_edges: tuple[FiniteFloat, ...] = ()
    trained_on: StoreScale | None = None
    statistics: dict[str, tuple[FiniteFloat, ...]] = {}
    """All statistics without a field of their own."""

    def all_statistics(self) -> Statistics:
        """Return the statistics by name."""
        own = {name: values for name in _OWN_FIELDS if (values := getattr(self, name))}
        return own | self.statistics

    @model_validator(mode="after")
    def _consistent(self) -> "_Settings":
        of_encoder = self.encoder is None or self.width == self.encoder.width
        if not of_encoder or not self.task.accepts(self.classes, self.all_statistics()):
            raise ValueError("classes, weights, bins and width are of different models")
        return self


def save_model(path: Path | str, model: SlideModel) -> None:
    """Write weights, settings and the encoder's scale as one safetensors file, completely or not at all."""
    others = {name: values for name, values in model.statistics.items() if name not in _OWN_FIELDS}
    settings = _Settings(
        encoder=model.encoder.config if model.encoder else None,
        width=model.width,
        pooling=model.pooling,
        classes=model.classes,
        task=model.task,
        trained_on=model.encoder.trained_on if model.encoder else None,
        statistics=others,
        **{name: model.statistics.get(name, ()) for name in _OWN_FIELDS},
    )
    text = settings.model_dump_json(exclude=None if others else {"statistics"})
    with written_whole(Path(path)) as temporary:
        save_file(model.state_dict(), temporary, {MODEL: text})


def load_model(path: Path | str) -> SlideModel:
    """Read a model that `save_model` wrote, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: The file is missing, not a model of `longvit finetune`, or its tensors do not fit its settings.
    """
    with open_weights(path) as weights:
        if MODEL not in weights.metadata:
            raise CheckpointError(
                "these weights are not a model with a head",
                where=path,
                fix="give a model.safetensors of `longvit finetune`",
            )
        try:
            settings = _Settings.model_validate_json(weights.metadata[MODEL])
        except ValidationError as error:
            raise weights.error("the file's settings do not describe a model of this version") from error
        weights.require_bounded(settings)
        encoder = lambda: LongViT(settings.encoder) if settings.encoder else None
        shape = (settings.task, settings.classes, settings.pooling, settings.width)
        model = weights.fill(lambda: SlideModel(encoder(), *shape))
        model.statistics = settings.all_statistics()
        scales = [module for module in (model.head, model.attention) if module is not None]
        if not all((module.std > 0).all() for module in scales):
            raise weights.error("the deviation of a channel is not positive")
        if model.encoder is not None:
            model.encoder.trained_on = settings.trained_on
    return model
