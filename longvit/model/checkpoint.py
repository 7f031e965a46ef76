"""Encoders in files: safetensors with their config inside, and the official checkpoints of LongViT."""

import os
import pickle
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from longvit.config import EncoderConfig
from longvit.model.encoder import LongViT
from longvit.model.presets import PRESETS
from preprocessing.errors import CheckpointError

_CONFIG = "longvit_encoder_config"
_NAMED_PROBLEMS = 5


def save_encoder(path: Path, encoder: LongViT) -> None:
    """Write weights and config to one safetensors file, in full or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(encoder.state_dict(), partial, metadata={_CONFIG: encoder.config.model_dump_json()})
    os.replace(partial, path)


def load_encoder(path: Path) -> LongViT:
    """Read an encoder that `save_encoder` wrote; it comes on the CPU and in evaluation mode.

    Raises:
        CheckpointError: The file is missing, not safetensors, without a config, or does not hold what its config says.
    """
    try:
        with safe_open(_existing(path), "pt") as file:
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
    return _filled(config, state, path)


def load_official(source: Path | Mapping[str, Any], preset: str | EncoderConfig) -> LongViT:
    """Build an encoder with the weights of an official torchscale LongViT, on the CPU and in evaluation mode.

    Reads the layout of `longvit_small_patch32_1024.pth` (DINO's: `teacher`, names after `backbone.`) and of fine-tuned
    models (`model` or `module`, names after `model.`). Heads, and the norm before them, are not part of the encoder
    and are left out.

    Args:
        source: A `.pth` file, or the mapping of names to tensors from one.
        preset: A name in `PRESETS`, or a config of its own.

    Raises:
        CheckpointError: The file is missing, or cannot be read without running code from it, or holds no tensors by
            name; the preset does not exist; tensors are missing, left over, or of another shape.
    """
    config = _preset(preset) if isinstance(preset, str) else preset
    where = "the given state dict" if isinstance(source, Mapping) else source
    state = _state_dict(source if isinstance(source, Mapping) else _read_pth(source), where)
    renamed = (_ours(name, tensor) for name, tensor in state.items())
    return _filled(config, dict(item for item in renamed if item), where)


def _preset(name: str) -> EncoderConfig:
    if name not in PRESETS:
        raise CheckpointError(f"there is no preset {name!r}", where="preset", fix=f"pass one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError("the checkpoint does not exist", where=path, fix="check the path")
    return path


def _read_pth(path: Path) -> object:
    try:
        with torch.serialization.safe_globals([Namespace]):  # DINO keeps its command line beside the weights
            return torch.load(_existing(path), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            "the file is not a torch checkpoint of plain tensors",
            where=path,
            fix="download it again, or ask its author",
        ) from error


def _state_dict(content: object, where: object) -> Mapping[str, Tensor]:
    """Find the names and tensors in what an official checkpoint holds."""
    for key in ("teacher", "model", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(
            "the checkpoint holds no tensors by name, neither under `teacher`, `model` or `module` nor by itself",
            where=where,
            fix="pass a checkpoint of torchscale's LongViT",
        )
    return content


def _ours(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    """Official name and tensor -> ours; None for what belongs to a head."""
    for prefix in ("module.", "backbone.", "model."):
        name = name.removeprefix(prefix)
    if name.startswith(("head.", "norm.", "fc_norm.")):
        return None
    if name == "patch_embed.proj.weight":
        return "input.proj.weight", tensor.flatten(1)
    return {"patch_embed.proj.bias": "input.proj.bias", "pos_embed": "position.table"}.get(name, name), tensor


def _filled(config: EncoderConfig, state: Mapping[str, Tensor], where: object) -> LongViT:
    """Build a model of `config` and copy `state` into it, whose tensors it must have all of and no others."""
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
