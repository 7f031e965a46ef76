"""Settings that pretrain an encoder on the tiny cohort in a second."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from longvit.config import (
    DinoConfig,
    MaskedConfig,
    MocoConfig,
    PixelInput,
    PretrainConfig,
    PretrainOptimiserConfig,
    ViewsConfig,
)
from longvit.pretraining.objectives import build_objective
from longvit.pretraining.pretrain_module import PretrainModule
from longvit.pretraining.views import RegionDataset, collate_views
from longvit.tokens import TokenBatch
from longvit.training.loop import begin
from preprocessing.store.store import find_stores

OBJECTIVES = {
    "dino": DinoConfig(prototypes=32, hidden=16, bottleneck=8),
    "moco": MocoConfig(mlp_dim=16, dim=8, queue=12),
    "masked": MaskedConfig(decoder_width=16),
}
"""Every objective, tiny."""


@pytest.fixture
def views() -> ViewsConfig:
    return ViewsConfig(region_px=128, global_px=64, local_px=32, local_views=2, min_tissue=0.3)


@pytest.fixture
def config(cohort, tiny_encoder, views, tmp_path) -> PretrainConfig:
    return PretrainConfig(
        stores=cohort.stores,
        out=tmp_path / "run",
        encoder=tiny_encoder,
        objective=OBJECTIVES["dino"],
        views=views,
        optimiser=PretrainOptimiserConfig(epochs=3, learning_rate=1e-3, warmup_epochs=1),
        batch_size=5,
        regions_per_slide=1,
        loader_workers=0,
        device="cpu",
    )


@pytest.fixture(scope="session")
def objectives() -> dict:
    """Kind -> the settings of that objective, tiny."""
    return OBJECTIVES


@pytest.fixture(params=OBJECTIVES)
def any_config(request, config) -> PretrainConfig:
    """The settings with each objective in turn."""
    return config.model_copy(update={"objective": OBJECTIVES[request.param]})


@pytest.fixture
def batch(cohort, views) -> list[TokenBatch]:
    """Views of four regions: two of 16 tokens, two of 4."""
    dataset = RegionDataset(list(find_stores(cohort.stores).values()), PixelInput(patch_px=16), views, 1, 0)
    return collate_views([dataset[i] for i in range(4)])


@pytest.fixture
def start(monkeypatch) -> Callable[[PretrainConfig], PretrainModule]:
    """Settings -> their module as at the first of ten steps; what it logs goes to `module.logged`."""

    def build(config: PretrainConfig) -> PretrainModule:
        begin(config)
        module = build_objective(config)
        module.trainer = SimpleNamespace(estimated_stepping_batches=10, global_step=0, current_epoch=0)
        module.trainer.fit_loop = SimpleNamespace(total_batch_idx=0)
        module.logged = {}
        monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
        monkeypatch.setattr(module, "log_dict", lambda numbers, **kwargs: module.logged.update(numbers))
        return module

    return build
