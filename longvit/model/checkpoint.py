"""Files of encoders: safetensors that include the config and the scale of the training slides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from safetensors.torch import save_file

from longvit.config import EncoderConfig, without_execution
from longvit.model.encoder import LongViT
from longvit.model.weights import Weights, open_weights
from longvit.tokens.read import StoreScale
from preprocessing.errors import CheckpointError
from preprocessing.jobs.files import written_whole

_CONFIG = "longvit_encoder_config"
MODEL = "longvit_model"
"""Metadata key of a model with a head, which includes an encoder."""


SavedConfig = Annotated[EncoderConfig, BeforeValidator(without_execution)]
"""Config of an encoder in a file, which may be of version 0.1."""


class _Encoder(EncoderConfig):
    """Config of an encoder, and the scale of its training slides.

    Both are in one text, because safetensors writes several texts in any order.
    """

    trained_on: StoreScale | None = None
    _of_version_0_1 = model_validator(mode="before")(without_execution)


class _Model(BaseModel):
    """Settings of a finetuned model that concern its encoder."""

    model_config = ConfigDict(extra="ignore")
    encoder: SavedConfig
    trained_on: StoreScale | None = None


def save_encoder(path: Path | str, encoder: LongViT) -> None:
    """Write weights, config and scale to one safetensors file, completely or not at all."""
    saved = _Encoder(**encoder.config.model_dump(), trained_on=encoder.trained_on)
    with written_whole(Path(path)) as temporary:
        save_file(encoder.state_dict(), temporary, {_CONFIG: saved.model_dump_json()})


def load_encoder(path: Path | str) -> LongViT:
    """Read an encoder that `save_encoder` wrote, or the encoder in a finetuned model's `model.safetensors`.

    The encoder is on the CPU and in evaluation mode, with the scale of its training slides as `trained_on`.

    Raises:
        CheckpointError: The file is missing, not safetensors, without a config, or does not match its config.
    """
    with open_weights(path) as weights:
        config, scale, of_encoder = _encoder_in(weights)
        of_encoder.require_bounded(config)
        encoder = of_encoder.fill(lambda: LongViT(config))
    encoder.trained_on = scale
    return encoder


def _encoder_in(weights: Weights) -> tuple[EncoderConfig, StoreScale | None, Weights]:
    """Return the config of the encoder in a file, its scale (None in files of version 0.1.0), and its tensors."""
    told: Mapping[str, str] = weights.metadata
    try:
        if MODEL in told:
            model = _Model.model_validate_json(told[MODEL])
            return model.encoder, model.trained_on, weights.below("encoder.")
        saved = _Encoder.model_validate_json(told.get(_CONFIG, ""))
        return EncoderConfig(**saved.model_dump(exclude={"trained_on"})), saved.trained_on, weights
    except ValidationError as error:
        raise CheckpointError(
            "the file holds weights, but no encoder config in its metadata that can be read",
            where=weights.where,
            fix="pass an encoder.safetensors of `longvit pretrain`, or a model.safetensors of `longvit finetune`",
        ) from error
