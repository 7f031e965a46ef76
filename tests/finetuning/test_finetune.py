import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from longvit.config import CoxTask, EncoderConfig, EvaluateConfig, FinetuneConfig, SubtypeTask
from longvit.config.yaml_files import load_yaml
from longvit.evaluation.evaluate import run as evaluate
from longvit.evaluation.predictions import read_predictions
from longvit.finetuning.finetune import run
from longvit.finetuning.finetune_module import FinetuneModule
from longvit.model import LongViT, save_encoder
from longvit.model.predictor import load_model
from longvit.prediction.ensemble import load_ensemble
from longvit.tokens import stain
from longvit.tokens.read import StoreScale, slide_tokens
from preprocessing.errors import CheckpointError, CohortError, ConfigError, PipelineError, StoreError, TrainingError
from preprocessing.store.store import open_store


class PowerCut(Exception):
    """What ends a run in the middle."""


def changed(config: FinetuneConfig, **values) -> FinetuneConfig:
    return config.model_copy(update=values)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def retold(config: FinetuneConfig, folder: Path, case: str, **values) -> Path:
    """The table with other values for one patient."""
    table = pd.read_csv(config.table)
    table.loc[table["case_id"] == case, list(values)] = list(values.values())
    table.to_csv(folder / "retold.csv", index=False)
    return folder / "retold.csv"


def resplit(config: FinetuneConfig, folder: Path, change) -> Path:
    """The splits after a change to each table."""
    folder.mkdir()
    for path in config.splits.iterdir():
        change(pd.read_csv(path, index_col=0)).to_csv(folder / path.name)
    return folder


def cut_power(monkeypatch, at_call: int) -> list[int]:
    """Fail at one of the calls of a training step; the epoch of each call is listed."""
    step, epochs = FinetuneModule.training_step, []

    def failing_step(module, window, batch_idx):
        epochs.append(module.current_epoch)
        if len(epochs) == at_call:
            raise PowerCut
        return step(module, window, batch_idx)

    monkeypatch.setattr(FinetuneModule, "training_step", failing_step)
    return epochs


@pytest.mark.parametrize("trained_blocks", [0, None], ids=["frozen", "full"])
@pytest.mark.parametrize(
    ("task", "ours"),
    [(SubtypeTask(), ["label", "p_LUAD", "p_LUSC"]), (CoxTask(), ["time", "event", "time_unit", "risk"])],
)
def test_a_run_predicts_every_held_out_slide_in_the_columns_that_evaluation_reads(
    config, cohort, task, ours, trained_blocks
):
    path = run(changed(config, task=task, trained_blocks=trained_blocks))
    table = pd.read_csv(path)
    assert list(table) == ["patient_id", "slide_id", "fold", "split", *ours, "shuffled"]
    assert path == config.out / "predictions.csv"
    for k in (0, 1):
        split = pd.read_csv(cohort.splits / f"splits_{k}.csv")
        for part in ("val", "test"):
            rows = table[(table["fold"] == k) & (table["split"] == part)]
            assert rows["slide_id"].tolist() == split[part].dropna().tolist()
            assert rows["patient_id"].tolist() == rows["slide_id"].str[:3].tolist()
    predictions = read_predictions(path)
    assert predictions.task == ("subtyping" if isinstance(task, SubtypeTask) else "survival")
    assert len(predictions.part("test")) == 8


def test_predictions_carry_the_true_target_and_are_those_of_the_saved_model(config, cohort):
    table = pd.read_csv(run(changed(config, folds=(1,))))
    truth = pd.read_csv(config.table).groupby("case_id")["oncotree_code"].first()
    assert table["label"].tolist() == truth[table["patient_id"]].tolist()
    model = load_model(config.out / "fold_1" / "model.safetensors")
    for row in table.itertuples():
        tokens = slide_tokens(open_store(cohort.stores / f"{row.slide_id}.zarr"), config.encoder.input)
        with torch.no_grad():
            probability = model(tokens)[0].softmax(0).tolist()
        assert [row.p_LUAD, row.p_LUSC] == pytest.approx(probability, abs=1e-5)


def test_the_head_learns_the_dyes_of_the_two_classes(config):
    optimiser = config.optimiser.model_copy(update={"epochs": 30, "learning_rate": 0.1})
    table = pd.read_csv(run(changed(config, trained_blocks=0, optimiser=optimiser)))
    test = table[table["split"] == "test"]
    right = np.where(test["label"] == "LUAD", test["p_LUAD"], test["p_LUSC"])
    assert (right > 0.5).mean() > 0.8


def test_a_frozen_encoder_stays_as_it_is_and_an_unfrozen_one_does_not(config, tiny_encoder, tmp_path):
    save_encoder(tmp_path / "encoder.safetensors", LongViT(tiny_encoder))
    given = load_file(tmp_path / "encoder.safetensors")
    config = FinetuneConfig(
        **config.model_dump(exclude={"encoder", "checkpoint"}), checkpoint=tmp_path / "encoder.safetensors"
    )
    for freeze in (True, False):
        run(changed(config, trained_blocks=0 if freeze else None, folds=(0,), out=tmp_path / f"frozen_{freeze}"))
        trained = load_file(tmp_path / f"frozen_{freeze}" / "fold_0" / "model.safetensors")
        same = [torch.equal(trained[f"encoder.{name}"], given[name]) for name in given if given[name].ndim > 1]
        assert all(same) if freeze else not any(same)


def test_random_layers_are_on_in_training_and_off_in_predictions(config, monkeypatch):
    modes = set()
    step = FinetuneModule.training_step

    def watched(module, window, batch_idx):
        modes.update(part.training for part in module.modules())
        return step(module, window, batch_idx)

    monkeypatch.setattr(FinetuneModule, "training_step", watched)
    run(changed(config, folds=(0,)))
    assert modes == {True}


@pytest.mark.parametrize("select", ["last", "best_val"])
@pytest.mark.parametrize("trained_blocks", [0, None], ids=["frozen", "full"])
def test_test_patients_never_influence_training(config, tmp_path, select, trained_blocks):
    config = changed(config, select=select, trained_blocks=trained_blocks, folds=(0,))
    run(config)
    lied = retold(config, tmp_path, "P01", oncotree_code="LUAD")  # P01 is in test of fold 0
    run(changed(config, table=lied, out=tmp_path / "lied"))
    honest, other = (load_file(out / "fold_0" / "model.safetensors") for out in (config.out, tmp_path / "lied"))
    assert all(torch.equal(honest[name], other[name]) for name in honest)
    rows = [pd.read_csv(out / "predictions.csv") for out in (config.out, tmp_path / "lied")]
    pd.testing.assert_frame_equal(rows[0].drop(columns="label"), rows[1].drop(columns="label"))
    assert not rows[0]["label"].equals(rows[1]["label"])


def test_slides_of_test_patients_never_influence_training(config, copy_store, tmp_path):
    config = changed(config, trained_blocks=0, folds=(0,))
    run(config)
    shutil.copytree(config.stores, tmp_path / "stores")
    shutil.rmtree(tmp_path / "stores" / "P01-0.zarr")
    copy_store(config.stores / "P10-0.zarr", tmp_path / "stores" / "P01-0.zarr")
    run(changed(config, stores=tmp_path / "stores", out=tmp_path / "other", accept=("duplicate",)))
    honest, other = (load_file(out / "fold_0" / "model.safetensors") for out in (config.out, tmp_path / "other"))
    assert all(torch.equal(honest[name], other[name]) for name in honest)


def test_a_training_patient_does_influence_training(config, tmp_path):
    config = changed(config, trained_blocks=0, folds=(0,))
    run(config)
    lied = retold(config, tmp_path, "P07", oncotree_code="LUAD")
    run(changed(config, table=lied, out=tmp_path / "lied"))
    honest, other = (load_file(out / "fold_0" / "model.safetensors") for out in (config.out, tmp_path / "lied"))
    assert not torch.equal(honest["head.linear.weight"], other["head.linear.weight"])


@pytest.mark.parametrize("task", [SubtypeTask(), CoxTask()], ids=["subtype", "cox"])
def test_controls_trained_on_shuffled_labels_stand_beside_the_real_predictions(config, task):
    path = run(changed(config, task=task, trained_blocks=0, shuffles=2))
    predictions = read_predictions(path)
    assert predictions.shuffles("test") == [0, 1]
    truth = ["patient_id", "label"] if predictions.classes else ["patient_id", "time", "event"]
    real, control = predictions.part("test"), predictions.part("test", shuffled=0)
    assert real[truth].equals(control[truth])
    outputs = [f"p_{name}" for name in predictions.classes] or ["risk"]
    assert not np.allclose(real[outputs], control[outputs])
    assert not list(config.out.rglob("shuffled_*/model.safetensors"))


@pytest.mark.parametrize("trained_blocks", [0, None], ids=["frozen", "full"])
def test_a_half_done_cross_validation_does_only_the_other_half(config, trained_blocks):
    config = changed(config, trained_blocks=trained_blocks, shuffles=1)
    expected = run(config).read_bytes()
    done = contents(config.out / "fold_0")
    times = {path: path.stat().st_mtime_ns for path in (config.out / "fold_0").rglob("*")}
    (config.out / "predictions.csv").unlink()
    shutil.rmtree(config.out / "fold_1")
    assert run(config).read_bytes() == expected
    assert contents(config.out / "fold_0") == done
    assert {path: path.stat().st_mtime_ns for path in (config.out / "fold_0").rglob("*")} == times
    assert read_predictions(config.out / "predictions.csv").shuffles("test") == [0]


@pytest.mark.parametrize("trained_blocks", [0, None])
def test_a_half_done_run_of_normalised_slides_ends_as_an_undisturbed_one(config, monkeypatch, trained_blocks):
    config = changed(config, trained_blocks=trained_blocks, stain="macenko")
    expected = run(config).read_bytes()
    assert load_yaml(config.out / "config.yaml", FinetuneConfig).encoder.input.stain == "macenko"
    (config.out / "predictions.csv").unlink()
    shutil.rmtree(config.out / "fold_1")
    shutil.rmtree(config.out / "representations", ignore_errors=True)
    monkeypatch.setattr(stain, "_KNOWN", {})
    assert run(config).read_bytes() == expected
    with pytest.raises(ConfigError, match="other settings"):
        run(changed(config, stain="reinhard"))


@pytest.mark.parametrize("select", ["last", "best_val"])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_run_ends_as_an_undisturbed_one(config, tmp_path, monkeypatch, select, workers):
    optimiser = config.optimiser.model_copy(update={"epochs": 3})
    config = changed(config, select=select, optimiser=optimiser)
    expected = run(changed(config, out=tmp_path / "undisturbed")).read_bytes()
    config = changed(config, loader_workers=workers)
    begun = []
    for at_call in (2, 4, 8):  # in the first epoch, in the second, and in the second of the other fold
        with monkeypatch.context() as patch:
            begun.append(cut_power(patch, at_call))
            with pytest.raises(PowerCut):
                run(config)
    assert run(config).read_bytes() == expected
    assert begun == [[0, 0], [0, 0, 1, 1], [1, 1, 2, 2, 0, 0, 1, 1]]  # no finished epoch is done again


@pytest.mark.parametrize("select", ["last", "best_val"])
def test_a_fold_that_was_trained_but_not_predicted_is_only_predicted(config, monkeypatch, select):
    config = changed(config, folds=(0,), select=select)
    expected = run(config).read_bytes()
    (config.out / "predictions.csv").unlink()
    (config.out / "fold_0" / "predictions.csv").unlink()
    cut_power(monkeypatch, at_call=1)
    assert run(config).read_bytes() == expected


def test_a_finished_run_started_again_changes_nothing(config):
    run(config)
    before = contents(config.out)
    run(config)
    assert contents(config.out) == before


def test_a_folder_with_a_run_of_other_settings_is_refused(config):
    run(changed(config, folds=(0,)))
    with pytest.raises(ConfigError, match=r"other settings \(folds\)"):
        run(config)


def test_the_epoch_with_the_lowest_val_loss_is_the_one_used(config):
    optimiser = config.optimiser.model_copy(update={"epochs": 6, "learning_rate": 0.05})
    run(changed(config, select="best_val", optimiser=optimiser, folds=(0,)))
    metrics = pd.read_csv(config.out / "fold_0" / "metrics.csv")
    best = torch.load(config.out / "fold_0" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == metrics.loc[metrics["val_loss"].idxmin(), "epoch"]
    model = load_file(config.out / "fold_0" / "model.safetensors")
    assert all(torch.equal(model[name], best["state_dict"][f"model.{name}"]) for name in model)


def test_splits_without_test_are_predicted_on_val_and_cannot_choose_the_epoch_there(config, tmp_path):
    splits = resplit(config, tmp_path / "no_test", lambda table: table.drop(columns="test"))
    predictions = read_predictions(run(changed(config, splits=splits)))
    assert (len(predictions.part("val")), len(predictions.part("test"))) == (4, 0)
    with pytest.raises(ConfigError, match="fold 0 has no test part, so results are reported on val"):
        run(changed(config, splits=splits, select="best_val", out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_fold_without_events_is_refused_before_anything_is_computed(config, tmp_path):
    table = pd.read_csv(config.table)
    table.loc[table["case_id"].isin([f"P{i:02d}" for i in range(6, 12)]), "censorship"] = 1
    table.to_csv(tmp_path / "quiet.csv", index=False)
    with pytest.raises(CohortError, match="fold 0 has 0 observed events in train, fewer than 2") as error:
        run(changed(config, task=CoxTask(), table=tmp_path / "quiet.csv"))
    assert error.value.where == config.splits / "splits_0.csv"
    assert not config.out.exists()


def test_choosing_the_epoch_on_a_val_part_without_events_is_refused(config, tmp_path):
    table = pd.read_csv(config.table)
    table.loc[table["case_id"].isin(["P04", "P05"]), "censorship"] = 1
    table.to_csv(tmp_path / "quiet.csv", index=False)
    quiet = changed(config, task=CoxTask(), table=tmp_path / "quiet.csv", folds=(0,))
    with pytest.raises(CohortError, match="fold 0 has 0 observed events in val, fewer than 1"):
        run(changed(quiet, select="best_val"))
    run(quiet)


def test_a_fold_that_lacks_a_class_in_training_is_refused(config, tmp_path):
    only_luad = resplit(
        config,
        tmp_path / "one_class",
        lambda table: table.assign(train=table["train"].where(table["train"].str[2].isin(list("02468")))),
    )
    with pytest.raises(CohortError, match="fold 0 has no training patient of class LUSC"):
        run(changed(config, splits=only_luad))


def test_missing_stores_are_named(config, tmp_path):
    shutil.copytree(config.stores, tmp_path / "stores")
    shutil.rmtree(tmp_path / "stores" / "P02-1.zarr")
    with pytest.raises(CohortError, match="1 of 14 slides have no store: P02-1"):
        run(changed(config, stores=tmp_path / "stores"))
    with pytest.raises(StoreError, match="folder of stores does not exist"):
        run(changed(config, stores=tmp_path / "none"))


def test_a_run_depends_on_its_seed_and_on_nothing_that_happened_before(config, tmp_path):
    outs = {}
    for name, state, seed in (("one", 1, 0), ("same", 2, 0), ("other", 1, 1)):
        torch.manual_seed(state)
        outs[name] = run(changed(config, out=tmp_path / name, seed=seed, folds=(0,))).read_bytes()
    assert outs["one"] == outs["same"] != outs["other"]


def test_a_patient_with_two_slides_has_a_prediction_for_each(config):
    table = pd.read_csv(run(changed(config, trained_blocks=0, folds=(0,))))
    assert table.loc[table["patient_id"] == "P02", "slide_id"].tolist() == ["P02-0", "P02-1"]


@pytest.fixture
def pretrained(config, tiny_encoder, tmp_path) -> FinetuneConfig:
    """Settings that start from a checkpoint, whose encoder is not the default one."""
    encoder = LongViT(tiny_encoder)
    encoder.trained_on = StoreScale(mpp=0.5, tile_px=64)
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    values = {"encoder": EncoderConfig(), "checkpoint": tmp_path / "encoder.safetensors", "folds": (0,)}
    return changed(config, **values, trained_blocks=0)


def test_the_settings_of_a_run_and_its_report_are_those_of_the_encoder_that_was_used(pretrained, tiny_encoder):
    config = changed(pretrained, drop_path=0.5, segment_lengths=(32, 128))
    evaluate(EvaluateConfig(predictions=run(config)))
    used = load_model(config.out / "fold_0" / "model.safetensors").encoder.config
    assert used == tiny_encoder.model_copy(update={"drop_path": 0.5, "segment_lengths": (32, 128)})
    written = load_yaml(config.out / "config.yaml", FinetuneConfig)
    assert written.encoder == used
    assert written.checkpoint == config.checkpoint
    report = (config.out / "report.md").read_text()
    assert "width: 16" in report
    assert "width: 384" not in report
    assert load_ensemble(config.out).settings.encoder == used
    before = contents(config.out)
    run(config)  # the same command is the same run, and so is what it wrote down
    run(changed(written, out=config.out))
    assert contents(config.out) == before


def test_settings_of_another_encoder_than_the_checkpoints_are_refused(pretrained, tiny_encoder):
    run(changed(pretrained, encoder=tiny_encoder))
    with pytest.raises(ConfigError, match="the encoder of the settings is not the checkpoint's encoder"):
        run(changed(pretrained, encoder=tiny_encoder.model_copy(update={"depth": 3})))


@pytest.mark.parametrize("scale", [StoreScale(mpp=1.0, tile_px=64), StoreScale(mpp=0.5, tile_px=256)])
def test_a_checkpoint_that_was_trained_at_another_scale_is_refused(pretrained, tiny_encoder, scale):
    encoder = LongViT(tiny_encoder)
    encoder.trained_on = scale
    save_encoder(pretrained.checkpoint, encoder)
    with pytest.raises(StoreError, match=r"tiles of 64 pixels at 0\.5 um per pixel, but .* was trained on") as error:
        run(pretrained)
    assert f"--mpp {scale.mpp:g} --tile-px {scale.tile_px}" in error.value.fix
    assert not pretrained.out.exists()


def test_a_models_file_has_the_scale_of_its_training_slides(config):
    run(changed(config, folds=(0,)))
    assert load_model(config.out / "fold_0" / "model.safetensors").encoder.trained_on == StoreScale(mpp=0.5, tile_px=64)


def test_slides_that_are_all_the_same_predict_nothing_and_the_run_says_so(config, save_store, tmp_path, capsys):
    for i in range(12):
        save_store(f"W{i:02d}", [[0, 0], [0, 1], [2, 2], [3, 1]], np.full((4, 64, 64, 3), 255, np.uint8))
    rows = [(f"W{i:02d}", f"W{i:02d}", ("LUAD", "LUSC")[i % 2]) for i in range(12)]
    pd.DataFrame(rows, columns=["case_id", "slide_id", "oncotree_code"]).to_csv(tmp_path / "white.csv", index=False)
    (tmp_path / "splits").mkdir()
    names = [row[0] for row in rows]
    parts = {"train": names[:8], "val": names[8:10], "test": names[10:]}
    table = pd.DataFrame({part: pd.Series(of) for part, of in parts.items()})
    table.to_csv(tmp_path / "splits" / "splits_0.csv")
    white = {"stores": tmp_path, "table": tmp_path / "white.csv", "splits": tmp_path / "splits"}
    predictions = pd.read_csv(run(changed(config, **white, trained_blocks=0)))
    assert predictions["p_LUSC"].sub(0.5).abs().max() < 0.05
    notes = (config.out / "fold_0" / "notes.txt").read_text()
    assert "the representations of all 8 training sequences are the same" in notes
    assert "training sequences are the same" in " ".join(capsys.readouterr().out.split())


def test_a_loss_of_millions_ends_with_a_note(config):
    optimiser = config.optimiser.model_copy(update={"learning_rate": 100.0, "warmup_epochs": 0})
    run(changed(config, optimiser=optimiser, folds=(0,)))
    notes = (config.out / "fold_0" / "notes.txt").read_text()
    assert "the loss has risen to" in notes
    assert "lower optimiser.learning_rate" in notes


def test_a_checkpoint_that_is_damaged_is_named(config, monkeypatch):
    cut_power(monkeypatch, at_call=3)
    with pytest.raises(PowerCut):
        run(changed(config, folds=(0,)))
    last = config.out / "fold_0" / "checkpoints" / "last.ckpt"
    for content in (last.read_bytes()[:-1000], b"", b"not a checkpoint"):
        last.write_bytes(content)
        with pytest.raises(CheckpointError, match="the training's checkpoint is damaged") as error:
            run(changed(config, folds=(0,)))
        assert error.value.where == last


def test_a_model_that_diverged_in_its_last_step_predicts_nothing(config):
    optimiser = config.optimiser.model_copy(update={"learning_rate": 1e30, "warmup_epochs": 0, "epochs": 1})
    with pytest.raises(PipelineError, match=r"not finite|became (nan|inf)"):
        run(changed(config, optimiser=optimiser, folds=(0,), window=100))
    assert not (config.out / "predictions.csv").exists()


def test_weights_that_overflow_end_in_a_sentence_and_no_checkpoint_holds_them(config):
    optimiser = config.optimiser.model_copy(update={"learning_rate": 1e30, "warmup_epochs": 0, "epochs": 3})
    with pytest.raises(TrainingError, match=r"became (nan|inf) in epoch"):
        run(changed(config, optimiser=optimiser, folds=(0,)))
    last = config.out / "fold_0" / "checkpoints" / "last.ckpt"
    if last.exists():
        state = torch.load(last, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in state.values())
