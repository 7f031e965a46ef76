"""Encoder, pooling and head: a slide -> class logits, or hazards; and the file that keeps all three."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, FiniteFloat, PositiveFloat, PositiveInt, ValidationError, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from longvit.config import EncoderConfig, FinetuneConfig, NllTask, SubtypeTask, Task
from longvit.finetuning.task_loss import TaskLoss
from longvit.finetuning.windows import SlideItem
from longvit.model import LongViT, load_encoder
from longvit.model.checkpoint import MODEL, SavedConfig
from longvit.model.pooling import GatedAttention, mean_pool, varies
from longvit.model.weights import open_weights, weights_of
from longvit.tokens.batch import TokenBatch
from longvit.tokens.read import Scale
from preprocessing.errors import CheckpointError, ConfigError
from preprocessing.jobs.files import written_whole

Pooling = Literal["encoder", "attention"]


class SlideHead(nn.Module):
    """Standardise a representation by the training slides' mean and deviation, then one linear layer.

    Mean-pooled tokens of two slides differ little against their common mean; standardising them is what the linear
    probes of MAE and MoCo v3 do with a batch norm, made independent of the batch.
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
        """Take mean and deviation from the training slides' representations; a constant channel has deviation 1."""
        mean_D, std_D = representations_BD.mean(dim=0), representations_BD.std(dim=0, correction=0)
        self.mean.copy_(mean_D)
        self.std.copy_(std_D.where(varies(mean_D, std_D), 1.0))

    def forward(self, representations_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """Logits or log hazards."""
        return self.linear((representations_BD - self.mean) / self.std)


class SlideModel(nn.Module):
    """What predicts: LongViT, a pooling of its tokens, a head.

    Args:
        encoder: The encoder; none for a model of vectors that something else made, such as a baseline's.
        task: What is predicted.
        classes: Classes in the order of the outputs; empty for survival.
        pooling: `encoder` takes the slide's vector as the encoder pools it, `attention` trains a gated attention.
        width: Width of the vectors, where there is no encoder.
    """

    def __init__(
        self,
        encoder: LongViT | None,
        task: Task,
        classes: tuple[str, ...],
        pooling: Pooling = "encoder",
        width: int | None = None,
    ) -> None:
        super().__init__()
        self.width = encoder.config.width if encoder else width
        self.encoder, self.classes, self.pooling, self.loss = encoder, classes, pooling, TaskLoss(task)
        self.attention = GatedAttention(self.width) if pooling == "attention" else None
        self.head = SlideHead(self.width, task.bins if isinstance(task, NllTask) else len(classes) or 1)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.loss.task

    def encode(self, item: SlideItem) -> Tensor:
        """What a frozen encoder makes of a sequence once: (B, D), or (B, L, D) where attention is to pool it."""
        if isinstance(item, Tensor):
            return item
        encoded = self.encoder.encode(self.encoder.embed(item), item.mask_BL)
        return encoded.slide_BD if self.attention is None else encoded.tokens_BLD

    def pool(self, encoded: Tensor, mask_BL: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B D"]:
        """One vector per sequence, of tokens (B, L, D) or of the vector (B, D) itself."""
        if encoded.ndim == 2:
            return encoded
        return mean_pool(encoded, mask_BL) if self.attention is None else self.attention(encoded, mask_BL)

    def represent(self, item: SlideItem) -> Float[Tensor, "B D"]:
        """The sequences' representations, whatever was read of them."""
        return self.pool(self.encode(item), item.mask_BL if isinstance(item, TokenBatch) else None)

    def forward(self, item: SlideItem) -> Float[Tensor, "B O"]:
        """Logits of the classes, the log hazard, or a logit of the hazard in each bin of time."""
        return self.head(self.represent(item))


def build_model(config: FinetuneConfig, classes: tuple[str, ...]) -> SlideModel:
    """The model of a config, before anything is learned from labels.

    Raises:
        CheckpointError: There is no such encoder, or its weights do not fit.
        ConfigError: More blocks are to be trained than there are, or segments do not fit the dilations.
    """
    encoder = load_encoder(config.checkpoint) if config.checkpoint else LongViT(config.encoder)
    made = encoder.config
    if config.trained_blocks is not None and config.trained_blocks > made.depth:
        raise ConfigError(
            f"{config.trained_blocks} blocks are to be trained, and the encoder has {made.depth}",
            where="trained_blocks",
            fix="name fewer, or leave it out to train all of the encoder",
        )
    if config.segment_lengths is not None and len(config.segment_lengths) != len(made.dilation_ratios):
        raise ConfigError(
            f"there are {len(config.segment_lengths)} segment lengths for {len(made.dilation_ratios)} branches",
            where="segment_lengths",
            fix=f"give one for each of the encoder's dilation ratios, {', '.join(map(str, made.dilation_ratios))}",
        )
    changes = {"drop_path": config.drop_path, "segment_lengths": config.segment_lengths}
    changed = made.model_copy(update={name: value for name, value in changes.items() if value is not None})
    if config.checkpoint and config.encoder not in (EncoderConfig(), made, changed):
        raise ConfigError(
            "the encoder of the settings is not that of the checkpoint",
            where=config.checkpoint,
            fix="leave encoder out: a checkpoint holds its encoder's settings",
        )
    if changed != made:  # the weights depend on neither
        trained_on = encoder.trained_on
        encoder = weights_of(encoder.state_dict(), config.checkpoint).fill(lambda: LongViT(changed))
        encoder.trained_on = trained_on
    encoder.execution = config.execution
    return SlideModel(encoder, config.task, classes, config.pooling)


class _Settings(BaseModel):
    """A model's settings, as its file holds them beside the weights."""

    encoder: SavedConfig | None
    width: PositiveInt
    pooling: Pooling
    classes: tuple[str, ...]
    task: Task
    class_weights: tuple[PositiveFloat, ...] = ()
    bin_edges: tuple[FiniteFloat, ...] = ()
    trained_on: Scale | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "_Settings":
        bins = self.task.bins - 1 if isinstance(self.task, NllTask) else 0
        fits = (
            self.width == (self.encoder.width if self.encoder else self.width),
            bool(self.classes) == isinstance(self.task, SubtypeTask),
            len(set(self.classes)) == len(self.classes),
            len(self.class_weights) in (0, len(self.classes)),
            len(self.bin_edges) in (0, bins) and list(self.bin_edges) == sorted(self.bin_edges),
        )
        if not all(fits):
            raise ValueError("classes, weights, bins and width are of different models")
        return self


def save_model(path: Path | str, model: SlideModel) -> None:
    """Write weights, settings and the encoder's scale as one safetensors file, through a temporary name."""
    settings = _Settings(
        encoder=model.encoder.config if model.encoder else None,
        width=model.width,
        pooling=model.pooling,
        classes=model.classes,
        task=model.task,
        class_weights=model.loss.class_weights,
        bin_edges=model.loss.bin_edges,
        trained_on=model.encoder.trained_on if model.encoder else None,
    )
    with written_whole(Path(path)) as temporary:
        save_file(model.state_dict(), temporary, {MODEL: settings.model_dump_json()})


def load_model(path: Path | str) -> SlideModel:
    """Read a model that `save_model` wrote; it is returned on the CPU and in evaluation mode.

    Raises:
        CheckpointError: The file is missing, not a model of ours, or does not hold what its settings say.
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
            raise weights.error("the file's settings are not those of a model of this version") from error
        weights.require_bounded(settings)
        model = weights.fill(lambda: _with_settings(settings))
        scales = [module for module in (model.head, model.attention) if module is not None]
        if not all((module.std > 0).all() for module in scales):
            raise weights.error("the deviation of a channel is not positive")
        if model.encoder is not None:
            model.encoder.trained_on = settings.trained_on
    return model


def _with_settings(settings: _Settings) -> SlideModel:
    encoder = LongViT(settings.encoder) if settings.encoder else None
    model = SlideModel(encoder, settings.task, settings.classes, settings.pooling, settings.width)
    model.loss = TaskLoss(settings.task, settings.class_weights, settings.bin_edges)
    return model
