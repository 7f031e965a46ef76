"""Settings -> a model that is not trained yet."""

from longvit.config import EncoderConfig, FinetuneConfig
from longvit.model import LongViT, load_encoder
from longvit.model.predictor import SlideModel
from longvit.model.weights import weights_of
from preprocessing.errors import ConfigError


def build_model(config: FinetuneConfig, classes: tuple[str, ...]) -> SlideModel:
    """Build the model of a config, before anything is learned from labels.

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
