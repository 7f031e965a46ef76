"""Encoders in files: safetensors with their config inside."""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from longvit.config import EncoderConfig
from longvit.model.encoder import LongViT
from preprocessing.errors import CheckpointError
from preprocessing.files import written_whole

_CONFIG = "longvit_encoder_config"
_NAMED_PROBLEMS = 5


def save_encoder(path: Path, encoder: LongViT) -> None:
    """Write weights and config to one safetensors file, in full or not at all."""
    with written_whole(path) as temporary:
        save_file(encoder.state_dict(), temporary, metadata={_CONFIG: encoder.config.model_dump_json()})


def load_encoder(path: Path) -> LongViT:
    """Read an encoder that `save_encoder` wrote; it comes on the CPU and in evaluation mode.

    Raises:
        CheckpointError: The file is missing, not safetensors, without a config, or does not hold what its config says.
    """
    try:
        with safe_open(existing(path), "pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"the file is not safetensors, or is cut short ({error})",
            where=path,
            fix="pass a file that `save_encoder` wrote; an official .pth file goes through `load_official`",
        ) from error
    try:
        config = EncoderConfig.model_validate_json(metadata.get(_CONFIG, ""))
    except ValidationError as error:
        raise CheckpointError(
            f"the file holds weights, but no encoder config that can be read under `{_CONFIG}` in its metadata",
            where=path,
            fix="pass a file that `save_encoder` of this version wrote",
        ) from error
    return filled(config, state, path)


def existing(path: Path) -> Path:
    """The path itself.

    Raises:
        CheckpointError: No file is there.
    """
    if not path.is_file():
        raise CheckpointError("the checkpoint does not exist", where=path, fix="check the path")
    return path


def filled(config: EncoderConfig, state: Mapping[str, Tensor], where: object) -> LongViT:
    """Build a model of `config` and copy `state` into it, whose tensors it must have all of and no others.

    Args:
        config: The encoder.
        state: Our names -> tensors of any float dtype; they are copied.
        where: What the user gave, for the error.

    Raises:
        CheckpointError: Tensors are missing, left over, or of another shape; the first few are named.
    """
    with torch.device("meta"):
        encoder = LongViT(config)
    if problems := _problems(encoder.state_dict(), state):
        more = len(problems) - _NAMED_PROBLEMS
        raise CheckpointError(
            "the weights do not fit the encoder: "
            + "; ".join(problems[:_NAMED_PROBLEMS])
            + (f"; and {more} more" if more > 0 else ""),
            where=where,
            fix="pass the preset or config that the weights were trained with",
        )
    encoder.to_empty(device="cpu").load_state_dict(state)
    return encoder.eval()


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Every tensor that is missing, of another shape, or left over."""
    missing = [f"{name} is missing, expected {tuple(x.shape)}" for name, x in expected.items() if name not in found]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(x.shape)}"
        for name, x in expected.items()
        if name in found and found[name].shape != x.shape
    ]
    extra = [
        f"{name} {tuple(x.shape)} is not a tensor of this encoder" for name, x in found.items() if name not in expected
    ]
    return shapes + missing + extra
