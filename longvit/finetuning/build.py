"""Construction of an untrained model from settings."""

from longvit.config import EncoderConfig, FinetuneConfig
from longvit.model import LongViT, load_encoder
from longvit.model.predictor import SlideModel
from longvit.model.weights import weights_of
from longvit.training.mesh import current_mesh
from preprocessing.errors import ConfigError

_INSTEAD = {
    "min_tissue": "leave min_tissue out; `longvit tile --min-tissue` leaves out whole tiles",
    "stain": "leave stain out, and compute embeddings of normalised tiles",
}
"""Fix for each setting of patches that is given for an encoder without patches."""


def build_model(config: FinetuneConfig, classes: tuple[str, ...]) -> SlideModel:
    """Build the model of a config, before it learns from labels.

    Raises:
        CheckpointError: The encoder does not exist, or its weights do not fit.
        ConfigError: More blocks are to be trained than the encoder has, segments do not fit the dilations, the settings
            name another encoder than the checkpoint's, or tissue or stain is asked of tokens that are not patches.
    """
    encoder = load_encoder(config.checkpoint) if config.checkpoint else LongViT(config.encoder)
    made = encoder.config
    if config.trained_blocks is not None and config.trained_blocks > made.depth:
        raise ConfigError(
            f"{config.trained_blocks} blocks are to be trained, but the encoder has only {made.depth}",
            where="trained_blocks",
            fix="set fewer blocks, or leave the setting out to train all of the encoder",
        )
    if config.segment_lengths is not None and len(config.segment_lengths) != len(made.dilation_ratios):
        raise ConfigError(
            f"there are {len(config.segment_lengths)} segment lengths for {len(made.dilation_ratios)} branches",
            where="segment_lengths",
            fix=f"give one per dilation ratio of the encoder ({', '.join(map(str, made.dilation_ratios))})",
        )
    changed = _changed(made, config)
    if config.checkpoint and config.encoder not in (EncoderConfig(), made, changed):
        raise ConfigError(
            "the encoder of the settings is not the checkpoint's encoder",
            where=config.checkpoint,
            fix="leave encoder out: a checkpoint contains its encoder's settings",
        )
    if changed != made:  # the weights depend on none of the changes
        trained_on = encoder.trained_on
        encoder = weights_of(encoder.state_dict(), config.checkpoint).fill(lambda: LongViT(changed))
        encoder.trained_on = trained_on
    encoder.execution, encoder.group = config.execution, current_mesh().sequence
    return SlideModel(encoder, config.task, classes, config.pooling)


def _changed(made: EncoderConfig, config: FinetuneConfig) -> EncoderConfig:
    """Return the encoder's settings with the changes that the config asks for."""
    wanted = {"drop_path": config.drop_path, "segment_lengths": config.segment_lengths}
    changes: dict[str, object] = {name: value for name, value in wanted.items() if value is not None}
    of_patches = {"min_tissue": config.min_tissue, "stain": config.stain}
    of_patches = {name: value for name, value in of_patches.items() if value is not None}
    for name in of_patches:
        if name not in type(made.input).model_fields:
            raise ConfigError(
                "the encoder reads embeddings of whole tiles, which have no patches",
                where=name,
                fix=_INSTEAD[name],
            )
    if of_patches:
        changes["input"] = made.input.model_copy(update=of_patches)
    return made.model_copy(update=changes)
