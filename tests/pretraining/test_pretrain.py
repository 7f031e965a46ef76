import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from longvit.config import EmbeddingInput, PretrainConfig
from longvit.model import LongViT, load_encoder
from longvit.pretraining.pretrain import drawn_views, run
from longvit.pretraining.pretrain_module import PretrainModule
from longvit.tokens.read import StoreScale
from preprocessing import add_embeddings
from preprocessing.errors import ConfigError, StoreError
from preprocessing.store.store import open_store


class PowerCut(Exception):
    """What ends a run in the middle."""


def changed(config: PretrainConfig, **values) -> PretrainConfig:
    return config.model_copy(update=values)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cut_power(monkeypatch, epoch: int) -> list[int]:
    """Fail at the second batch of an epoch; the epoch of each batch is listed."""
    step, epochs = PretrainModule.training_step, []

    def failing_step(module, views, batch_idx):
        epochs.append(module.current_epoch)
        if module.current_epoch == epoch and batch_idx == 1:
            raise PowerCut
        return step(module, views, batch_idx)

    monkeypatch.setattr(PretrainModule, "training_step", failing_step)
    return epochs


KEPT = {"dino": "teacher.encoder", "moco": "student.encoder", "masked": "restorer.encoder"}


def test_a_run_leaves_an_encoder_that_does_not_know_its_objective(any_config):
    path = run(any_config)
    assert path == any_config.out / "encoder.safetensors"
    assert load_encoder(path).config == any_config.encoder
    checkpoint = torch.load(any_config.out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    kept = load_file(path)
    assert kept.keys() == LongViT(any_config.encoder).state_dict().keys()
    assert all(torch.equal(kept[name], checkpoint[f"{KEPT[any_config.objective.kind]}.{name}"]) for name in kept)


def test_every_objective_works_on_stores_of_embeddings(any_config, cohort, tmp_path):
    stores = shutil.copytree(cohort.stores, tmp_path / "stores")
    for path in stores.iterdir():
        store = open_store(path)
        vectors = np.random.default_rng(0).normal(size=(len(store), 12)).astype(np.float32)
        add_embeddings(path, "any", vectors, {})
    encoder = any_config.encoder.model_copy(update={"input": EmbeddingInput(encoder="any", dim=12)})
    path = run(changed(any_config, stores=stores, encoder=encoder))
    assert load_encoder(path).config == encoder


def test_dino_alone_is_given_local_views(any_config):
    drawn = drawn_views(any_config).local_views
    assert drawn == (any_config.views.local_views if any_config.objective.kind == "dino" else 0)


def test_a_run_writes_a_row_of_metrics_for_each_epoch(config):
    run(config)
    metrics = pd.read_csv(config.out / "metrics.csv")
    assert metrics["epoch"].tolist() == [0, 1, 2]
    assert metrics["step"].tolist() == [2, 4, 6]  # 14 draws an epoch are two batches of 5
    assert metrics[["loss", "feature_std"]].notna().all(axis=None)


def test_a_run_depends_on_its_seed_and_on_nothing_that_happened_before(config, tmp_path):
    torch.manual_seed(1)
    one = load_file(run(config))
    torch.manual_seed(2)
    same = load_file(run(changed(config, out=tmp_path / "same")))
    other = load_file(run(changed(config, out=tmp_path / "other", seed=1)))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["input.proj.weight"], other["input.proj.weight"])


@pytest.mark.parametrize(("workers", "epoch"), [(0, 2), (1, 1)])
def test_an_interrupted_run_ends_as_an_undisturbed_one(any_config, tmp_path, monkeypatch, workers, epoch):
    undisturbed = changed(any_config, out=tmp_path / "undisturbed")
    expected = load_file(run(undisturbed))
    config = changed(any_config, loader_workers=workers)
    with monkeypatch.context() as patch:
        cut_power(patch, epoch)
        with pytest.raises(PowerCut):
            run(config)
    assert not (config.out / "encoder.safetensors").exists()
    with monkeypatch.context() as patch:
        epochs = cut_power(patch, 99)
        resumed = load_file(run(config))
    assert min(epochs) == epoch  # no finished epoch is done again
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert (config.out / "metrics.csv").read_text() == (undisturbed.out / "metrics.csv").read_text()


def test_a_run_cut_off_before_it_saved_its_encoder_saves_the_same_one(config):
    path = run(config)
    expected = path.read_bytes()
    path.unlink()
    assert run(config).read_bytes() == expected


def test_a_finished_run_started_again_changes_nothing(config):
    run(config)
    before = contents(config.out)
    run(config)
    assert contents(config.out) == before


def test_a_folder_with_a_run_of_other_settings_is_refused(config):
    run(config)
    with pytest.raises(ConfigError, match=r"other settings \(batch_size, seed\)|other settings \(seed, batch_size\)"):
        run(changed(config, seed=1, batch_size=4))


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0)])
def test_a_run_goes_on_with_another_number_of_workers(config, tmp_path, monkeypatch, before, after):
    expected = load_file(run(changed(config, out=tmp_path / "undisturbed")))
    with monkeypatch.context() as patch:
        cut_power(patch, 1)
        with pytest.raises(PowerCut):
            run(changed(config, loader_workers=before))
    with monkeypatch.context() as patch:
        epochs = cut_power(patch, 99)
        resumed = load_file(run(changed(config, loader_workers=after)))
    assert sorted(set(epochs)) == [1, 2]
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_a_batch_larger_than_an_epoch_is_refused(config):
    with pytest.raises(ConfigError, match="an epoch has 14 regions, fewer than a batch of 15"):
        run(changed(config, batch_size=15))
    assert not config.out.exists()


def test_the_encoder_holds_the_scale_of_its_stores(config):
    assert load_encoder(run(config)).trained_on == StoreScale(mpp=0.5, tile_px=64)


@pytest.mark.parametrize("mpp", [0.25, 1.0])
def test_stores_of_two_resolutions_are_refused(config, save_store, tmp_path, mpp):
    save_store("a", [[0, 0]])
    save_store("b", [[0, 0]], mpp=mpp)
    with pytest.raises(StoreError, match=f"at {mpp:g} um per pixel, but a.zarr has tiles of 64 pixels at 0.5") as error:
        run(changed(config, stores=tmp_path, batch_size=1))
    assert error.value.where == tmp_path / "b.zarr"


def test_stores_are_needed(config, tmp_path):
    with pytest.raises(StoreError, match="folder of stores does not exist"):
        run(changed(config, stores=tmp_path / "none"))
