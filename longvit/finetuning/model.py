"""Encoder, pooling and head: a slide -> class logits, or hazards; and the file that keeps all three."""

import json
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from longvit.config import EncoderConfig, FinetuneConfig, NllTask, Task
from longvit.finetuning.task_loss import TaskLoss
from longvit.finetuning.windows import SlideItem
from longvit.model import LongViT, load_encoder
from longvit.model.checkpoint import filled
from longvit.model.pooling import GatedAttention, mean_pool
from longvit.tokens.batch import TokenBatch
from preprocessing.errors import CheckpointError, ConfigError
from preprocessing.files import written_whole

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
        """Take mean and deviation from the training slides' representations."""
        self.mean.copy_(representations_BD.mean(dim=0))
        self.std.copy_(representations_BD.std(dim=0, correction=0).clamp_min(1e-6))

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
    if changed != made:  # the weights depend on neither
        encoder = filled(changed, encoder.state_dict(), config.checkpoint)
    return SlideModel(encoder, config.task, classes, config.pooling)


def save_model(path: Path, model: SlideModel) -> None:
    """Write weights and settings as one safetensors file, through a temporary name."""
    settings = {
        "encoder": model.encoder.config.model_dump(mode="json") if model.encoder else None,
        "width": model.width,
        "pooling": model.pooling,
        "classes": model.classes,
        "task": model.task.model_dump(mode="json"),
        "class_weights": model.loss.class_weights,
        "bin_edges": model.loss.bin_edges,
    }
    with written_whole(path) as temporary:
        save_file(model.state_dict(), temporary, {"longvit_model": json.dumps(settings)})


def load_model(path: Path) -> SlideModel:
    """Read a model that `save_model` wrote.

    Raises:
        CheckpointError: No such file, not a model of ours, or one that this version cannot fill.
    """
    if not path.is_file():
        raise CheckpointError(
            "the model does not exist", where=path, fix="check the path; a run has fold_<k>/model.safetensors"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"not a safetensors file: {error}", where=path, fix="copy the file again") from None
    if "longvit_model" not in metadata:
        raise CheckpointError(
            "these weights are not a model with a head",
            where=path,
            fix="give a model.safetensors of `longvit finetune`",
        )
    try:
        model = _with_settings(json.loads(metadata["longvit_model"]))
        model.load_state_dict(state)
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            "what the file says of its model does not fit this version, or not its weights",
            where=path,
            fix="train the model again with `longvit finetune`",
        ) from error
    return model.eval()


def _with_settings(settings: dict) -> SlideModel:
    encoder = LongViT(EncoderConfig.model_validate(settings["encoder"])) if settings["encoder"] else None
    task: Task = TypeAdapter(Task).validate_python(settings["task"])
    model = SlideModel(encoder, task, tuple(settings["classes"]), settings["pooling"], settings["width"])
    model.loss = TaskLoss(task, tuple(settings["class_weights"]), tuple(settings["bin_edges"]))
    return model
