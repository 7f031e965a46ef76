"""Law: a mesh of any shape trains, encodes and predicts like one process."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from longvit.config import (
    CoxTask,
    DinoConfig,
    MaskedConfig,
    MocoConfig,
    NllTask,
    PretrainConfig,
    PretrainOptimiserConfig,
    SubtypeTask,
    ViewsConfig,
)
from longvit.finetuning.finetune import run as finetune
from longvit.pretraining.pretrain import run as pretrain

MESHES = {"2x1": (2, 1), "1x2": (1, 2), "2x2": (2, 2)}
"""`data` ranks, and ranks per sequence."""
OBJECTIVES = {
    "dino": DinoConfig(prototypes=32, hidden=16, bottleneck=8),
    "sinkhorn": DinoConfig(prototypes=32, hidden=16, bottleneck=8, centring="sinkhorn", batch_norm=True),
    "moco": MocoConfig(mlp_dim=16, dim=8, queue=12),
    "moco without a queue": MocoConfig(mlp_dim=16, dim=8, queue=0),
    "masked": MaskedConfig(decoder_width=16),
}
TASKS = {"subtype": SubtypeTask(), "cox": CoxTask(), "nll": NllTask(bins=2)}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def assert_near(run: Path, other: Path, name: str) -> None:
    """Check the rows of two tables: equal words, and numbers that differ by rounding in float32."""
    one, two = (pd.read_csv(folder / name) for folder in (run, other))
    assert list(one) == list(two)
    for column in one:
        if one[column].dtype == np.float64:
            np.testing.assert_allclose(two[column], one[column], rtol=1e-6, atol=1e-7, err_msg=column)
        else:
            assert one[column].tolist() == two[column].tolist()


def in_double(run, config) -> None:
    """Run a verb in double precision, so that rounding stays small: Adam divides gradients by their own size."""
    torch.set_default_dtype(torch.float64)
    try:
        run(config)
    finally:
        torch.set_default_dtype(torch.float32)


def meshed(config, mesh: tuple[int, int], out: Path):
    execution = config.execution.model_copy(update={"sequence_parallel": mesh[1]})
    return config.model_copy(update={"out": out, "execution": execution})


@pytest.fixture
def pretraining(cohort, tiny_encoder, tmp_path) -> PretrainConfig:
    encoder = tiny_encoder.model_copy(update={"dropout": 0.0})
    return PretrainConfig(
        stores=cohort.stores,
        out=tmp_path / "one",
        encoder=encoder,
        views=ViewsConfig(region_px=128, global_px=64, local_px=32, local_views=2, min_tissue=0.3),
        optimiser=PretrainOptimiserConfig(epochs=3, learning_rate=1e-3, warmup_epochs=1),
        batch_size=4,
        regions_per_slide=1,
        loader_workers=0,
        device="cpu",
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_has_the_losses_and_weights_of_one_process(launched, pretraining, objective, tmp_path):
    config = pretraining.model_copy(update={"objective": OBJECTIVES[objective]})
    in_double(pretrain, config)
    for name, mesh in MESHES.items():
        launched(mesh[0] * mesh[1], in_double, pretrain, meshed(config, mesh, tmp_path / name))
        assert_near(tmp_path / "one", tmp_path / name, "metrics.csv")
        one, other = (tensors(tmp_path / folder / "encoder.safetensors") for folder in ("one", name))
        for key in one:
            torch.testing.assert_close(other[key], one[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_the_losses_and_predictions_of_one_process(launched, config, task, frozen, tmp_path):
    encoder = config.encoder.model_copy(update={"dropout": 0.0})
    changes = {"task": TASKS[task], "encoder": encoder, "out": tmp_path / "one", "pooling": "attention", "folds": (0,)}
    config = config.model_copy(update=changes | {"trained_blocks": 0 if frozen else None})
    in_double(finetune, config)
    for name, mesh in MESHES.items():
        launched(mesh[0] * mesh[1], in_double, finetune, meshed(config, mesh, tmp_path / name))
        assert_near(tmp_path / "one", tmp_path / name, "predictions.csv")
        assert_near(tmp_path / "one" / "fold_0", tmp_path / name / "fold_0", "metrics.csv")
