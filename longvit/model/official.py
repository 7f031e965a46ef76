"""Published weights of torchscale's LongViT and of Prov-GigaPath's slide encoder."""

import math
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from longvit.config import PRESETS, EncoderConfig, LearnedPosition
from longvit.model.encoder import LongViT
from longvit.model.weights import existing, is_plain, weights_of
from preprocessing.errors import CheckpointError

_KEYS = ("teacher", "model", "module")
_PREFIXES = ("module.", "backbone.", "model.")
_NAMES = {
    "patch_embed.proj.weight": "input.proj.weight",
    "patch_embed.proj.bias": "input.proj.bias",
    "pos_embed": "position.table",
    "cls_token": "class_token.vector",
    "norm.weight": "pooling.norm.weight",
    "norm.bias": "pooling.norm.bias",
}


def load_official(source: Path | str | Mapping[str, Any], preset: str | EncoderConfig) -> LongViT:
    """Build an encoder with published weights, on the CPU and in evaluation mode. No code of the file is run.

    Reads the layout of `longvit_small_patch32_1024.pth` (DINO's: `teacher`, names after `backbone.`), of fine-tuned
    LongViTs (`model` or `module`, names after `model.`), and of Prov-GigaPath's `slide_encoder.pth` (`model`). Heads
    are not part of the encoder and are left out, and so is LongViT's norm before them. A learned table of positions may
    have any side, because fine-tuned encoders have their own. The table is kept unchanged, and stretched as the preset
    sets.

    Args:
        source: A `.pth` file, or the mapping of names to tensors from such a file.
        preset: A name in `PRESETS`, or an encoder's config.

    Raises:
        CheckpointError: The file is missing, cannot be read without running its code, or holds no tensors by name. Or
            the preset does not exist. Or tensors are missing, left over, or of another shape.
    """
    config = preset_config(preset) if isinstance(preset, str) else preset
    where = "the given state dict" if isinstance(source, Mapping) else source
    state = _state_dict(source if isinstance(source, Mapping) else _read_pth(source), where)
    ours = _renamed(state, config)
    return weights_of(ours, where).fill(lambda: LongViT(_with_table_of(config, ours)))


def preset_config(name: str) -> EncoderConfig:
    """Return the encoder config of a preset.

    Raises:
        CheckpointError: The preset does not exist; the message lists the presets.
    """
    if name not in PRESETS:
        raise CheckpointError(f"there is no preset {name!r}", where="preset", fix=f"pass one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _read_pth(path: Path | str) -> object:
    """Return the content of a file that torch.save wrote.

    A damaged pickle raises a dozen types of exceptions, so all of them are caught. Tensors are mapped into memory and
    not read, so a file that declares more data than it contains takes no memory.
    """
    path = existing(path)
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped and any(entry.compress_type for entry in zipfile.ZipFile(path).infolist()):
            raise ValueError("compressed, as torch.save never writes it: it may unpack to any size")  # noqa: TRY301
        with torch.serialization.safe_globals([Namespace]):  # DINO stores its command line next to the weights
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        raise CheckpointError(
            "the file is cut short, or is not a torch checkpoint of plain tensors",
            where=path,
            fix="download it again and compare its size, or ask its author",
        ) from error


def _state_dict(content: object, where: object) -> Mapping[str, Tensor]:
    """Return the names and tensors in the content of an official checkpoint."""
    for key in _KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not _names_tensors(content) or not content:
        raise CheckpointError(
            f"the checkpoint holds no tensors by name, neither under {', '.join(f'`{key}`' for key in _KEYS)} nor by "
            "itself",
            where=where,
            fix="pass a checkpoint of torchscale's LongViT or of Prov-GigaPath's slide encoder",
        )
    return content


def _names_tensors(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    )


def _renamed(state: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """Return official tensors under this project's names, without tensors outside the encoder."""
    unused = {"none": ("norm.",), "slide": ("encoder.layer_norm.",), "both": ()}[config.final_norm]
    ours = {}
    for official, tensor in state.items():
        name = official
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name.startswith(("head.", "fc_norm.", *unused)):
            continue
        if name == "pos_embed" and not isinstance(config.position, LearnedPosition):
            continue  # a fixed table, computed here instead
        kernel = name == "patch_embed.proj.weight" and tensor.ndim > 1 and is_plain(tensor)
        ours[_NAMES.get(name, name)] = tensor.flatten(1) if kernel else tensor
    return ours


def _with_table_of(config: EncoderConfig, state: Mapping[str, Tensor]) -> EncoderConfig:
    """Return the config with the side of the checkpoint's own table of positions."""
    table = state.get("position.table")
    if table is None or table.ndim != 3 or math.isqrt(table.shape[1]) ** 2 != table.shape[1]:
        return config
    position = LearnedPosition(grid=math.isqrt(table.shape[1]), stretch=config.position.stretch)  # type: ignore[union-attr]
    return config.model_copy(update={"position": position})
