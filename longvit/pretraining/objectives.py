"""Objectives of pretraining, by their kind in the settings."""

from longvit.config import PretrainConfig
from longvit.pretraining.dino import DinoModule
from longvit.pretraining.masked import MaskedModule
from longvit.pretraining.moco import MocoModule
from longvit.pretraining.pretrain_module import PretrainModule

_MODULES: dict[str, type[PretrainModule]] = {"dino": DinoModule, "moco": MocoModule, "masked": MaskedModule}


def build_objective(config: PretrainConfig) -> PretrainModule:
    """Build the training module of the configured objective and encoder."""
    return _MODULES[config.objective.kind](config)
