"""Verb `pretrain`: stores -> encoder."""

from pathlib import Path

from torch.utils.data import DataLoader

from longvit.config import PixelInput, PretrainConfig
from longvit.model import LongViT, save_encoder
from longvit.pretraining.dino import DinoModule
from longvit.pretraining.views import DrawSampler, RegionDataset, collate_views
from longvit.runs import open_run
from longvit.tokens.dataset import find_stores
from longvit.tokens.read import require_one_scale
from longvit.training import begin, fit
from preprocessing.errors import ConfigError


def run(config: PretrainConfig) -> Path:
    """Pretrain an encoder; a run that was interrupted goes on from its last epoch.

    Returns:
        `encoder.safetensors` in the run's folder, the last thing that is written.

    Raises:
        ConfigError: A batch is larger than an epoch, or the folder holds another run.
        StoreError: No stores, or stores of several resolutions.
    """
    stores = list(find_stores(config.stores).values())
    require_one_scale(stores)
    draws = len(stores) * config.regions_per_slide
    if draws < config.batch_size:
        raise ConfigError(
            f"an epoch has {draws} regions, fewer than a batch of {config.batch_size}",
            where="batch_size",
            fix="lower batch_size or raise regions_per_slide",
        )
    result = config.out / "encoder.safetensors"
    folder = open_run(config, "pretrain", result)
    if not result.exists():
        begin(config)
        module = DinoModule(config)
        fit(module, region_loader(config, stores), config, folder)
        encoder = LongViT(config.encoder)  # as configured: the teacher's own has no dropout
        encoder.load_state_dict(module.teacher.encoder.state_dict())
        save_encoder(result, encoder)
    return result


def region_loader(config: PretrainConfig, stores: list[Path]) -> DataLoader:
    """Batches of views; workers stay alive between epochs."""
    assert isinstance(config.encoder.input, PixelInput)
    dataset = RegionDataset(stores, config.views, config.encoder.input.patch_px, config.regions_per_slide, config.seed)
    return DataLoader(
        dataset,
        config.batch_size,
        sampler=DrawSampler(len(dataset), config.seed),
        num_workers=config.loader_workers,
        collate_fn=collate_views,
        drop_last=True,
        persistent_workers=config.loader_workers > 0,
    )
