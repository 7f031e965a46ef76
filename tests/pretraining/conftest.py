"""Settings that pretrain an encoder on the tiny cohort in a second."""

import pytest

from longvit.config import DinoConfig, PretrainConfig, PretrainOptimiserConfig, ViewsConfig


@pytest.fixture
def views() -> ViewsConfig:
    return ViewsConfig(region_px=128, global_px=64, local_px=32, local_views=2, min_tissue=0.3)


@pytest.fixture
def config(cohort, tiny_encoder, views, tmp_path) -> PretrainConfig:
    return PretrainConfig(
        stores=cohort.stores,
        out=tmp_path / "run",
        encoder=tiny_encoder,
        objective=DinoConfig(prototypes=32, hidden=16, bottleneck=8),
        views=views,
        optimiser=PretrainOptimiserConfig(epochs=3, learning_rate=1e-3, warmup_epochs=1),
        batch_size=5,
        regions_per_slide=1,
        loader_workers=0,
        device="cpu",
    )
