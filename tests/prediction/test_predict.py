"""New slides through the models of a finished run: who is refused, and what is written of the others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from longvit.config import CoxTask, ExecutionConfig, FinetuneConfig, FinetuneOptimiserConfig, PixelInput, PredictConfig
from longvit.config.yaml_files import load_yaml
from longvit.finetuning.finetune import run as finetune
from longvit.model.predictor import load_model
from longvit.prediction.ensemble import load_ensemble
from longvit.prediction.predict import run
from longvit.tokens.read import slide_tokens
from preprocessing.errors import CheckpointError, CohortError, ConfigError, StoreError
from preprocessing.store.store import open_store

PLACES = [[0, 0], [0, 1], [1, 1], [3, 4]]


@pytest.fixture(scope="module")
def runs(cohort, tiny_encoder, tmp_path_factory) -> dict[str, Path]:
    """A finished run of subtyping with an encoder that was trained, and one of survival with a frozen one."""
    root = tmp_path_factory.mktemp("runs")
    common = {"stores": cohort.stores, "table": cohort.table, "splits": cohort.splits, "encoder": tiny_encoder}
    common |= {"optimiser": FinetuneOptimiserConfig(epochs=2, learning_rate=1e-2), "loader_workers": 0, "device": "cpu"}
    finetune(FinetuneConfig(out=root / "subtype", **common))
    finetune(FinetuneConfig(out=root / "cox", task=CoxTask(), trained_blocks=0, fusion="early", **common))
    return {"subtype": root / "subtype", "cox": root / "cox"}


@pytest.fixture
def new(save_store, tmp_path) -> Path:
    """A folder of two new slides, `N0` and `N1`."""
    for name in ("N0", "N1"):
        save_store(name, PLACES)
    (tmp_path / "new").mkdir()
    for name in ("N0", "N1"):
        shutil.move(tmp_path / f"{name}.zarr", tmp_path / "new" / f"{name}.zarr")
    return tmp_path / "new"


def config(run_: Path, stores: Path, **more) -> PredictConfig:
    return PredictConfig(run=run_, stores=stores, out=stores.parent / "out", device="cpu", **more)


def outputs(run_: Path, store: Path) -> list[torch.Tensor]:
    """What each fold's model says of one slide."""
    models = [load_model(run_ / f"fold_{k}" / "model.safetensors") for k in (0, 1)]
    with torch.no_grad():
        return [model(slide_tokens(open_store(store), model.encoder.config.input))[0] for model in models]


def test_probabilities_are_the_mean_of_the_models_of_all_folds(runs, new):
    predicted = run(config(runs["subtype"], new))
    table = pd.read_csv(predicted.table)
    assert predicted.failed == {}
    identity = ["patient_id", "slide_id", "fold", "split", "seen_by", "models"]
    assert list(table) == [*identity, "p_LUAD", "p_LUSC", "sd_LUAD", "sd_LUSC"]
    assert table[["patient_id", "fold", "split"]].to_numpy().tolist() == [[n, "ensemble", "test"] for n in ("N0", "N1")]
    each = np.array([out.softmax(0).numpy() for out in outputs(runs["subtype"], new / "N0.zarr")])
    assert table.loc[0, ["p_LUAD", "p_LUSC"]].tolist() == pytest.approx(each.mean(axis=0), abs=1e-5)
    assert table.loc[0, ["sd_LUAD", "sd_LUSC"]].tolist() == pytest.approx(each.std(axis=0), abs=1e-5)
    assert each[0, 0] != pytest.approx(each[1, 0], abs=1e-4)


def test_models_of_normalised_colours_normalise_new_slides_without_being_asked(runs, cohort, new, tmp_path):
    settings = load_yaml(runs["subtype"] / "config.yaml", FinetuneConfig)
    finetune(settings.model_copy(update={"stain": "macenko", "out": tmp_path / "normal"}))
    row = pd.read_csv(run(config(tmp_path / "normal", new)).table).iloc[0]
    each = np.array([out.softmax(0).numpy() for out in outputs(tmp_path / "normal", new / "N0.zarr")])
    assert row[["p_LUAD", "p_LUSC"]].tolist() == pytest.approx(each.mean(axis=0), abs=1e-5)
    model = load_model(tmp_path / "normal" / "fold_0" / "model.safetensors")
    assert model.encoder.config.input.stain == "macenko"
    with torch.no_grad():
        plain = model(slide_tokens(open_store(new / "N0.zarr"), PixelInput(patch_px=16)))[0].softmax(0)
    assert plain.tolist() != pytest.approx(each[0], abs=1e-3)


def test_slides_are_predicted_as_the_execution_says(runs, new, executions):
    run(config(runs["subtype"], new, execution=ExecutionConfig(tokens_at_once=64)))
    assert executions == [ExecutionConfig(tokens_at_once=64)] * 4  # two slides by two models


def test_risks_are_put_on_the_scale_of_the_training_patients_of_each_fold(runs, new, cohort):
    row = pd.read_csv(run(config(runs["cox"], new)).table).iloc[0]
    scales = [json.loads((runs["cox"] / f"fold_{k}" / "risk_scale.json").read_text()) for k in (0, 1)]
    each = [
        (out.item() - s["mean"]) / s["sd"] for out, s in zip(outputs(runs["cox"], new / "N0.zarr"), scales, strict=True)
    ]
    assert row["risk"] == pytest.approx(np.mean(each), abs=1e-3)
    assert row["sd_risk"] == pytest.approx(np.std(each), abs=1e-3)
    train = pd.read_csv(cohort.splits / "splits_0.csv")["train"].dropna()
    alone = [s for s in train if s[:3] not in ("P02", "P07")]  # the others have two slides, and are one sequence
    risks = [outputs(runs["cox"], cohort.stores / f"{slide}.zarr")[0].item() for slide in alone]
    assert min(risks) - 1e-4 <= scales[0]["mean"] + 3 * scales[0]["sd"]
    assert abs(np.mean(risks) - scales[0]["mean"]) < 2 * scales[0]["sd"]


def test_slides_of_a_patient_come_together_as_they_did_in_training(runs, new, tmp_path, capsys):
    (tmp_path / "table.csv").write_text("case_id,slide_id\nQ,N0.svs\nQ,N1.svs\n")
    early = pd.read_csv(run(config(runs["cox"], new, table=tmp_path / "table.csv")).table)
    assert early[["patient_id", "slide_id"]].to_numpy().tolist() == [["Q", "N0;N1"]]
    printed = capsys.readouterr().err
    assert printed == "1 patient with 2 slides, by table.csv; a patient's slides are read as one sequence\n"
    shutil.rmtree(tmp_path / "out")
    late = pd.read_csv(run(config(runs["subtype"], new, table=tmp_path / "table.csv")).table)
    assert late[["patient_id", "slide_id"]].to_numpy().tolist() == [["Q", "N0"], ["Q", "N1"]]


@pytest.mark.parametrize("known_by", ["slide", "patient", "file"])
def test_whom_a_model_knows_is_refused_by_name(runs, new, cohort, save_store, tmp_path, known_by, copy_store):
    (tmp_path / "table.csv").write_text(
        f"case_id,slide_id\n{'P04' if known_by == 'patient' else 'Q'},N0\nR,N1\nQ,P04-0\n"
    )
    if known_by == "slide":
        shutil.copytree(cohort.stores / "P04-0.zarr", new / "P04-0.zarr")
    elif known_by == "file":
        shutil.rmtree(new / "N0.zarr")
        copy_store(cohort.stores / "P04-0.zarr", new / "N0.zarr")
    asked = config(runs["subtype"], new, table=tmp_path / "table.csv")
    name = "P04" if known_by == "patient" else "Q"
    with pytest.raises(CohortError, match=f"the models were trained or selected on 1 of 2 patients: {name}"):
        run(asked)
    assert not asked.out.exists()
    table = pd.read_csv(run(asked.model_copy(update={"accept": ("seen",)})).table, dtype=str, keep_default_na=False)
    table = table.drop_duplicates("patient_id").set_index("patient_id")
    assert table.loc[name, ["split", "seen_by"]].tolist() == ["train", "0"]  # P04 is in test of fold 1
    assert table.loc["R", ["split", "seen_by"]].tolist() == ["test", ""]


def test_a_patient_who_was_only_tested_is_new(runs, cohort, tmp_path):
    (tmp_path / "stores").mkdir()
    shutil.copytree(cohort.stores / "P00-0.zarr", tmp_path / "stores" / "P00-0.zarr")
    with pytest.raises(CohortError, match="1 of 1 patients"):  # in test of fold 0, and trained on in fold 1
        run(config(runs["subtype"], tmp_path / "stores", table=cohort.table))
    membership = runs["subtype"] / "membership.csv"
    table = pd.read_csv(membership, dtype=str, keep_default_na=False)
    shutil.copytree(runs["subtype"], tmp_path / "run")
    table.assign(fold_1="test").to_csv(tmp_path / "run" / "membership.csv", index=False)
    assert run(config(tmp_path / "run", tmp_path / "stores", table=cohort.table)).table.exists()


@pytest.mark.parametrize("change", [{"mpp": 0.25}, {"tile": 32}], ids=["resolution", "tile side"])
def test_stores_of_another_scale_are_refused(runs, save_store, tmp_path, change):
    tiles = np.full((4, change["tile"], change["tile"], 3), 200, np.uint8) if "tile" in change else None
    save_store("N", PLACES, tiles, **({} if tiles is not None else change))
    asked = PredictConfig(run=runs["subtype"], stores=tmp_path, out=tmp_path / "out", device="cpu")
    with pytest.raises(StoreError, match=r"but this run was trained on tiles of 64 pixels at 0\.5 um per pixel"):
        run(asked)
    assert not asked.out.exists()


def test_a_slide_that_cannot_be_read_is_named_and_the_others_are_predicted(runs, new, tmp_path):
    shards = [path for path in (new / "N1.zarr" / "tiles" / "c").rglob("*") if path.is_file()]
    whole = {path: path.read_bytes() for path in shards}
    for path in shards:
        path.write_bytes(b"\0" * 64)
    predicted = run(config(runs["subtype"], new))
    assert list(predicted.failed) == ["N1"]
    before = pd.read_csv(predicted.table)
    assert before["slide_id"].tolist() == ["N0"]
    for path, content in whole.items():
        path.write_bytes(content)
    again = run(config(runs["subtype"], new))  # only what failed is done
    assert again.failed == {}
    assert pd.read_csv(again.table)["slide_id"].tolist() == ["N0", "N1"]
    pd.testing.assert_frame_equal(pd.read_csv(again.table).iloc[:1], before)


def test_a_model_that_cannot_be_read_is_named_and_the_others_predict(runs, new, tmp_path):
    shutil.copytree(runs["cox"], tmp_path / "run")
    (tmp_path / "run" / "fold_1" / "model.safetensors").write_bytes(b"damaged")
    predicted = run(config(tmp_path / "run", new))
    assert list(predicted.failed) == ["fold_1"]
    table = pd.read_csv(predicted.table)
    assert table["models"].tolist() == [0, 0]
    scale = json.loads((tmp_path / "run" / "fold_0" / "risk_scale.json").read_text())
    with torch.no_grad():
        model = load_model(runs["cox"] / "fold_0" / "model.safetensors")
        risk = model(slide_tokens(open_store(new / "N0.zarr"), model.encoder.config.input))[0].item()
    assert table.loc[0, "risk"] == pytest.approx((risk - scale["mean"]) / scale["sd"], abs=1e-3)


def test_a_folder_that_is_no_finished_run_is_refused(runs, new, tmp_path):
    with pytest.raises(CheckpointError, match="this is not the folder of a run"):
        run(config(tmp_path, new))
    shutil.copytree(runs["cox"], tmp_path / "run")
    (tmp_path / "run" / "membership.csv").unlink()
    with pytest.raises(CheckpointError, match=r"the run has no membership\.csv"):
        run(config(tmp_path / "run", new))
    for fold in ("fold_0", "fold_1"):
        (tmp_path / "run" / fold / "risk_scale.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the scale of the fold's risks cannot be read"):
        run(config(tmp_path / "run", new))
    (tmp_path / "run" / "predictions.csv").unlink()
    with pytest.raises(CheckpointError, match="the run is not finished"):
        run(config(tmp_path / "run", new))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_prediction_is_refused(runs, new):
    run(config(runs["subtype"], new))
    with pytest.raises(ConfigError, match=r"fold_0 model\.safetensors has changed"):
        run(config(runs["cox"], new))


def test_a_model_of_another_run_among_the_folds_is_named(runs, new, tmp_path):
    shutil.copytree(runs["subtype"], tmp_path / "run")
    shutil.copy(runs["cox"] / "fold_1" / "model.safetensors", tmp_path / "run" / "fold_1" / "model.safetensors")
    (tmp_path / "run" / "fold_x").mkdir()
    shutil.copy(runs["cox"] / "fold_1" / "model.safetensors", tmp_path / "run" / "fold_x" / "model.safetensors")
    ensemble = load_ensemble(tmp_path / "run")
    assert list(ensemble.models) == [0]
    assert "is not of this run" in ensemble.failed["fold_1"].what
