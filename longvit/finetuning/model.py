"""Encoder and head: a slide -> class logits, or its log hazard; and the file that keeps both."""

import json
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from longvit.config import CoxTask, EncoderConfig, SubtypeTask
from longvit.model import LongViT
from longvit.tokens.batch import TokenBatch
from preprocessing.errors import CheckpointError

_TASK: TypeAdapter[SubtypeTask | CoxTask] = TypeAdapter(SubtypeTask | CoxTask)


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
    """What predicts: LongViT, the mean of its tokens, a head.

    Args:
        encoder: The encoder.
        task: What is predicted.
        classes: Classes in the order of the outputs; empty for survival, whose one output is the log hazard.
    """

    def __init__(self, encoder: LongViT, task: SubtypeTask | CoxTask, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder, self.task, self.classes = encoder, task, classes
        self.head = SlideHead(encoder.config.width, len(classes) or 1)

    def represent(self, batch: TokenBatch) -> Float[Tensor, "B D"]:
        """The slides' representations."""
        return self.encoder.represent(batch)

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B O"]:
        """Logits of the classes, or the log hazard."""
        return self.head(self.represent(batch))


def save_model(path: Path, model: SlideModel) -> None:
    """Write weights and settings as one safetensors file, through a temporary name."""
    settings = {
        "encoder": model.encoder.config.model_dump(mode="json"),
        "task": model.task.model_dump(mode="json"),
        "classes": model.classes,
    }
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(model.state_dict(), temporary, {"longvit_model": json.dumps(settings)})
    temporary.replace(path)


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
        settings = json.loads(metadata["longvit_model"])
        encoder = LongViT(EncoderConfig.model_validate(settings["encoder"]))
        model = SlideModel(encoder, _TASK.validate_python(settings["task"]), tuple(settings["classes"]))
        model.load_state_dict(state)
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            "what the file says of its model does not fit this version, or not its weights",
            where=path,
            fix="train the model again with `longvit finetune`",
        ) from error
    return model.eval()
