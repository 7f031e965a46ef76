"""Encoders in files: safetensors with their config inside, and the scale of the slides they were trained on."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save_file

from longvit.config import EncoderConfig
from longvit.model.encoder import LongViT
from longvit.model.weights import Weights, open_weights
from longvit.tokens.read import Scale
from preprocessing.errors import CheckpointError
from preprocessing.files import written_whole

_CONFIG = "longvit_encoder_config"
_SCALE = "longvit_trained_on"
MODEL = "longvit_model"
"""Metadata of a model with a head, which holds an encoder too."""


class _Model(BaseModel):
    """What of a finetuned model's settings is about its encoder."""

    model_config = ConfigDict(extra="ignore")
    encoder: EncoderConfig


def save_encoder(path: Path | str, encoder: LongViT) -> None:
    """Write weights, config and scale to one safetensors file, in full or not at all."""
    metadata = {_CONFIG: encoder.config.model_dump_json(), **scale_metadata(encoder.trained_on)}
    with written_whole(Path(path)) as temporary:
        save_file(encoder.state_dict(), temporary, metadata)


def load_encoder(path: Path | str) -> LongViT:
    """Read an encoder that `save_encoder` wrote, or the one in a finetuned model's `model.safetensors`.

    It is returned on the CPU and in evaluation mode, with the scale it was trained at as `trained_on`.

    Raises:
        CheckpointError: The file is missing, not safetensors, without a config, or does not hold what its config says.
    """
    with open_weights(path) as weights:
        config, of_encoder = _encoder_in(weights)
        of_encoder.require_bounded(config)
        encoder = of_encoder.fill(lambda: LongViT(config))
        encoder.trained_on = read_scale(weights)
    return encoder


def scale_metadata(scale: Scale | None) -> dict[str, str]:
    """Return a scale as metadata of a safetensors file; empty if it is unknown."""
    return {_SCALE: scale.model_dump_json()} if scale else {}


def read_scale(weights: Weights) -> Scale | None:
    """Return the scale in a file's metadata; None for files of versions that did not record it.

    Raises:
        CheckpointError: The entry is there and cannot be read.
    """
    if _SCALE not in weights.metadata:
        return None
    try:
        return Scale.model_validate_json(weights.metadata[_SCALE])
    except ValidationError as error:
        raise weights.error(f"the scale under `{_SCALE}` in the file's metadata cannot be read") from error


def _encoder_in(weights: Weights) -> tuple[EncoderConfig, Weights]:
    """Return the config of the encoder in a file, and its tensors."""
    told: Mapping[str, str] = weights.metadata
    try:
        if MODEL in told:
            return _Model.model_validate_json(told[MODEL]).encoder, weights.below("encoder.")
        return EncoderConfig.model_validate_json(told.get(_CONFIG, "")), weights
    except ValidationError as error:
        raise CheckpointError(
            "the file holds weights, but no encoder config that can be read in its metadata",
            where=weights.where,
            fix="pass an encoder.safetensors of `longvit pretrain`, or a model.safetensors of `longvit finetune`",
        ) from error
