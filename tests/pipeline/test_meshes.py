"""Law: a mesh of any shape trains, encodes and predicts like one process."""

import os
import signal
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from longvit.cli.app import run_command
from longvit.config import (
    CoxTask,
    DinoConfig,
    MaskedConfig,
    MocoConfig,
    NllTask,
    PretrainConfig,
    PretrainOptimiserConfig,
    ProbeConfig,
    SubtypeTask,
    ViewsConfig,
)
from longvit.finetuning.finetune import run as finetune
from longvit.formats.run_json import read_starts
from longvit.pretraining.pretrain import run as pretrain
from longvit.pretraining.pretrain_module import PretrainModule
from preprocessing.errors import ConfigError

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


def some_slow(names, fast):
    """Names as parameters, of which only `fast` are in the suite: each takes half a minute; `make slow` has all."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


SINGLE = {"moco": 2e-3, "cox": 2e-3}
"""Tolerance of what libraries compute in single precision: lightly's queue and torchsurv's loss."""


def assert_near(run: Path, other: Path, name: str, tolerance: float) -> None:
    """Check the rows of two tables: equal words, and numbers that differ by rounding."""
    one, two = (pd.read_csv(folder / name) for folder in (run, other))
    assert list(one) == list(two)
    for column in one:
        if column == "risk":  # a log hazard has no zero: the gradient of its bias is rounding
            one[column], two[column] = (table[column] - table[column].mean() for table in (one, two))
        if one[column].dtype == np.float64:
            np.testing.assert_allclose(two[column], one[column], rtol=tolerance, atol=tolerance, err_msg=column)
        else:
            assert one[column].tolist() == two[column].tolist()


def steps_of(run: Path) -> int:
    return int(pd.read_csv(run / "metrics.csv")["step"].max())


def in_double(run, config, name: str) -> None:
    """Run a verb in double precision where it can: Adam divides gradients that are rounding by their own size."""
    torch.set_default_dtype(torch.float32 if name in SINGLE else torch.float64)
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


@pytest.mark.parametrize("objective", some_slow(OBJECTIVES, ("dino", "moco", "masked")))
def test_an_objective_has_the_losses_and_weights_of_one_process(launched, pretraining, objective, tmp_path):
    optimiser, tolerance = pretraining.optimiser.model_copy(update={"epochs": 4}), SINGLE.get(objective, 2e-6)
    config = pretraining.model_copy(update={"objective": OBJECTIVES[objective], "optimiser": optimiser})
    in_double(pretrain, config, objective)
    assert steps_of(tmp_path / "one") == 12
    for name, mesh in MESHES.items():
        launched(prod(mesh), in_double, pretrain, meshed(config, mesh, tmp_path / name), objective)
        assert_near(tmp_path / "one", tmp_path / name, "metrics.csv", tolerance)
        one, other = (load_file(tmp_path / folder / "encoder.safetensors") for folder in ("one", name))
        for key in one:
            torch.testing.assert_close(other[key], one[key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("task", some_slow(TASKS, ("subtype", "cox")))
def test_a_task_has_the_losses_and_predictions_of_one_process(launched, config, task, frozen, tmp_path):
    encoder, tolerance = config.encoder.model_copy(update={"dropout": 0.0}), SINGLE.get(task, 2e-6)
    changes = {"task": TASKS[task], "encoder": encoder, "out": tmp_path / "one", "pooling": "attention", "folds": (0,)}
    if task == "subtype":
        changes |= {"select": "best_val", "patience": 2, "baselines": ("mean",) if frozen else ()}
    changes["optimiser"] = config.optimiser.model_copy(update={"epochs": 5})
    config = config.model_copy(update=changes | {"trained_blocks": 0 if frozen else None})
    in_double(finetune, config, task)
    assert steps_of(tmp_path / "one" / "fold_0") >= 10
    for name, mesh in MESHES.items():
        launched(prod(mesh), in_double, finetune, meshed(config, mesh, tmp_path / name), task)
        assert_near(tmp_path / "one", tmp_path / name, "predictions.csv", tolerance)
        assert_near(tmp_path / "one" / "fold_0", tmp_path / name / "fold_0", "metrics.csv", tolerance)


@pytest.mark.parametrize("objective", some_slow(OBJECTIVES, ("masked",)))
def test_an_objective_with_sharded_weights_has_the_losses_and_weights_of_one_process(
    launched, pretraining, objective, tmp_path
):
    tolerance = SINGLE.get(objective, 2e-6)
    config = pretraining.model_copy(update={"objective": OBJECTIVES[objective]})
    in_double(pretrain, config, objective)
    for name, mesh in MESHES.items():
        launched(prod(mesh), in_double, pretrain, meshed(sharded(config), mesh, tmp_path / name), objective)
        assert_near(tmp_path / "one", tmp_path / name, "metrics.csv", tolerance)
        one, other = (load_file(tmp_path / folder / "encoder.safetensors") for folder in ("one", name))
        for key in one:
            torch.testing.assert_close(other[key], one[key], rtol=tolerance, atol=tolerance)


def sharded(config):
    return config.model_copy(update={"execution": config.execution.model_copy(update={"fsdp": True})})


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("task", some_slow(TASKS, ("cox",)))
def test_a_task_with_sharded_weights_has_the_losses_and_predictions_of_one_process(
    launched, config, task, frozen, tmp_path
):
    encoder, tolerance = config.encoder.model_copy(update={"dropout": 0.0}), SINGLE.get(task, 2e-6)
    changes = {"task": TASKS[task], "encoder": encoder, "out": tmp_path / "one", "pooling": "attention", "folds": (0,)}
    changes["trained_blocks"] = 0 if frozen else None
    if task == "subtype":
        optimiser = config.optimiser.model_copy(update={"epochs": 3, "clip_norm": 0.1, "accumulate": 2})
        changes |= {"select": "best_val", "trained_blocks": 0 if frozen else 1, "optimiser": optimiser}
    config = config.model_copy(update=changes)
    in_double(finetune, config, task)
    if task == "subtype" and not frozen:  # the weights to load are not those at hand
        assert pd.read_csv(tmp_path / "one" / "fold_0" / "metrics.csv")["val_loss"].dropna().argmin() == 0
    one = load_file(tmp_path / "one" / "fold_0" / "model.safetensors")
    for name, mesh in {"2x1": MESHES["2x1"]}.items() if frozen else MESHES.items():
        launched(prod(mesh), in_double, finetune, meshed(sharded(config), mesh, tmp_path / name), task)
        assert_near(tmp_path / "one", tmp_path / name, "predictions.csv", tolerance)
        assert_near(tmp_path / "one" / "fold_0", tmp_path / name / "fold_0", "metrics.csv", tolerance)
        other = load_file(tmp_path / name / "fold_0" / "model.safetensors")
        assert one.keys() == other.keys()
        near = tolerance if mesh[1] == 1 else max(tolerance, 1e-5)  # Adam: 4e-6 with cut sequences, sharded or not
        for key in one:
            if task != "cox" or key != "head.linear.bias":  # its gradient is rounding
                torch.testing.assert_close(other[key], one[key], rtol=near, atol=near)


def test_sharded_weights_are_probed_and_trained_in_bfloat16_as_whole_weights(launched, pretraining, cohort, tmp_path):
    probe = ProbeConfig(table=cohort.table, every=1, folds=3, neighbours=3)
    config = pretraining.model_copy(update={"objective": OBJECTIVES["dino"], "probe": probe, "precision": "bf16"})
    launched(2, pretrain, meshed(config, MESHES["2x1"], tmp_path / "one"))
    launched(2, pretrain, meshed(sharded(config), MESHES["2x1"], tmp_path / "other"))
    assert "probe_linear" in pd.read_csv(tmp_path / "other" / "metrics.csv")
    assert_near(tmp_path / "one", tmp_path / "other", "metrics.csv", 1e-3)
    one, other = (load_file(tmp_path / folder / "encoder.safetensors") for folder in ("one", "other"))
    assert {value.dtype for value in other.values()} == {value.dtype for value in one.values()}


def test_sharding_has_no_effect_in_one_process(config, tmp_path):
    config = config.model_copy(update={"folds": (0,)})
    for name, one in {"whole": config, "sharded": sharded(config)}.items():
        finetune(one.model_copy(update={"out": tmp_path / name}))
    whole, other = ((tmp_path / name / "fold_0" / "model.safetensors").read_bytes() for name in ("whole", "sharded"))
    assert whole == other


@pytest.mark.parametrize("verb", ["encode", "predict", "explain"])
def test_only_training_has_weights_to_shard(verb):
    with pytest.raises(ConfigError, match="only pretrain and finetune cut weights over processes"):
        run_command([verb, "--fsdp"])


def measured(config: PretrainConfig) -> tuple[int, int]:
    """Pretrain; return the numbers that this rank keeps of the weights and of the optimiser's two moments."""
    found = []

    def count(module, *_):
        of = lambda tensors: sum(getattr(x, "to_local", lambda x=x: x)().numel() for x in tensors if x.ndim)
        (optimiser,) = module.trainer.optimizers
        found.append((of(module.parameters()), of(x for state in optimiser.state.values() for x in state.values())))

    PretrainModule.on_train_epoch_end = count
    pretrain(config)
    return found[-1]


def test_a_rank_keeps_its_share_of_weights_and_optimiser(launched, pretraining, tmp_path):
    config = pretraining.model_copy(update={"objective": OBJECTIVES["dino"]})
    (whole, moments), _ = launched(2, measured, meshed(config, MESHES["2x1"], tmp_path / "ddp"))
    shares = launched(4, measured, meshed(sharded(config), MESHES["2x2"], tmp_path / "fsdp"))
    assert sum(weights for weights, _ in shares) == whole
    assert sum(states for _, states in shares) == moments
    assert max(weights for weights, _ in shares) < 0.3 * whole
    assert max(states for _, states in shares) < 0.3 * moments


def killed(config: PretrainConfig) -> None:
    """Pretrain; the last rank is killed in the second epoch."""
    step = PretrainModule.training_step

    def last(module, views, batch_idx):
        if module.current_epoch == 1 and module.trainer.global_rank == module.trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(module, views, batch_idx)

    PretrainModule.training_step = last
    in_double(pretrain, config, "dino")


@pytest.mark.parametrize(
    ("other", "fsdp"),
    [
        *[("one process", ()), ("1x2", ()), ("2x2", ())],
        *[("one process", ("before",)), ("2x2", ("before",))],
        *[pytest.param("2x2", when, marks=pytest.mark.slow) for when in (("after",), ("before", "after"))],
    ],
)
def test_a_run_whose_rank_was_killed_goes_on_in_another_mesh_as_if_undisturbed(
    launched, pretraining, other, fsdp, tmp_path
):
    config = pretraining.model_copy(update={"objective": OBJECTIVES["dino"]})
    in_double(pretrain, config, "dino")
    out = tmp_path / "other"
    with pytest.raises(AssertionError, match="rank 1: was killed"):
        launched(2, killed, meshed(sharded(config) if "before" in fsdp else config, MESHES["2x1"], out))
    assert len(pd.read_csv(out / "metrics.csv")) == 1
    if other in MESHES:
        again = meshed(sharded(config) if "after" in fsdp else config, MESHES[other], out)
        launched(prod(MESHES[other]), in_double, pretrain, again, "dino")
    else:
        in_double(pretrain, config.model_copy(update={"out": out}), "dino")
    assert_near(tmp_path / "one", out, "metrics.csv", 2e-6)
    one, two = (load_file(folder / "encoder.safetensors") for folder in (tmp_path / "one", out))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=2e-6, atol=2e-6)
    data, sequence = MESHES.get(other, (1, 1))
    starts = [start["machine"]["mesh"] for start in read_starts(out)]
    assert starts == [{"data": 2, "sequence": 1}, {"data": data, "sequence": sequence}]


@pytest.mark.parametrize("fsdp", [False, True])
def test_every_file_is_written_once(launched, pretraining, fsdp, tmp_path):
    out, config = tmp_path / "other", pretraining.model_copy(update={"objective": OBJECTIVES["masked"]})
    launched(4, pretrain, meshed(sharded(config) if fsdp else config, MESHES["2x2"], out))
    pretrain(config)
    names = lambda folder: sorted(p.relative_to(folder).parts for p in folder.rglob("*") if "tfevents" not in p.name)
    assert names(out) == names(tmp_path / "one")
    assert len([*out.rglob("*tfevents*")]) == len(read_starts(out)) == 1
    assert pd.read_csv(out / "timing.csv")["epoch"].tolist() == pd.read_csv(out / "metrics.csv")["epoch"].tolist()


@pytest.mark.parametrize("mesh", MESHES)
def test_gradients_of_several_batches_make_a_step(launched, pretraining, mesh, tmp_path):
    optimiser = pretraining.optimiser.model_copy(update={"accumulate": 2})
    config = pretraining.model_copy(update={"objective": OBJECTIVES["masked"], "optimiser": optimiser})
    in_double(pretrain, config, "masked")
    launched(prod(MESHES[mesh]), in_double, pretrain, meshed(config, MESHES[mesh], tmp_path / mesh), "masked")
    assert_near(tmp_path / "one", tmp_path / mesh, "metrics.csv", 2e-6)
    assert pd.read_csv(tmp_path / "one" / "metrics.csv")["step"].tolist() == [2, 4, 6]  # of three batches an epoch


def refusal(run, config, of_last=None) -> str:
    """Return the error of a run; the last of two ranks may have a config of its own."""
    with pytest.raises(ConfigError) as error:
        run(of_last if of_last and os.environ["RANK"] == "1" else config)
    return f"{error.value.where}: {error.value.what}"


def test_ranks_of_which_one_shards_are_refused_on_every_rank(launched, pretraining, tmp_path):
    said = launched(2, refusal, pretrain, pretraining, sharded(pretraining))
    assert said[0] == said[1]
    assert said[0].endswith("has execution.fsdp True, and rank 0 has False")
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("fsdp", [False, True])
def test_several_processes_are_refused_to_train_on_mps(launched, pretraining, fsdp, tmp_path):
    config = pretraining.model_copy(update={"device": "mps"})
    said = launched(2, refusal, pretrain, sharded(config) if fsdp else config)
    assert said == ["device: several processes cannot train on MPS"] * 2
    assert not (tmp_path / "one").exists()


def test_work_that_ranks_cannot_share_is_refused_on_every_rank_before_anything_is_written(
    launched, pretraining, config, tmp_path
):
    uneven = pretraining.model_copy(update={"batch_size": 3, "out": tmp_path / "pretrained"})
    assert launched(2, refusal, pretrain, uneven) == ["batch_size: 2 ranks cannot share 3 evenly"] * 2
    views = pretraining.views.model_copy(update={"local_px": 16})  # one patch
    short = meshed(pretraining.model_copy(update={"views": views}), MESHES["1x2"], tmp_path / "pretrained")
    said = launched(2, refusal, pretrain, short)
    assert said == ["execution.sequence_parallel: 1 of 2 sequences have too few tokens for 2 ranks: views.local_px"] * 2
    at_once = config.model_copy(update={"parallel_folds": 2, "out": tmp_path / "finetuned"})
    said = launched(2, refusal, finetune, at_once)
    assert said[0] == said[1]
    assert said[0].startswith("parallel_folds: folds cannot be trained at the same time")
    assert not (tmp_path / "pretrained").exists()
    assert not (tmp_path / "finetuned").exists()
    small = config.model_copy(update={"window": 1, "out": tmp_path / "small"})
    assert launched(2, refusal, finetune, small) == ["window: 2 ranks cannot share 1 patients"] * 2
    assert not (tmp_path / "small").exists()
