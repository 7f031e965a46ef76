"""Runs, folds and files that `explain` takes, and those that it refuses with one sentence."""

import shutil

import pytest

from longvit.config import ExplainConfig
from longvit.explanation.explain import run
from longvit.explanation.models import load_models
from longvit.model.outputs import RiskScale
from longvit.model.predictor import load_model, save_model
from longvit.tokens.read import StoreScale
from preprocessing.errors import CheckpointError, CohortError, ConfigError, PipelineError, StoreError

FILE = "model.safetensors"


def test_a_fold_is_named_by_number_folder_or_file(runs):
    by_number, by_folder = load_models(runs["cox"], 1), load_models(runs["cox"] / "fold_1")
    by_file = load_models(runs["cox"] / "fold_1" / FILE)
    for one in (by_number, by_folder, by_file):
        assert (one.folds, one.ensemble, one.scales, one.fusion) == ((1,), False, (), "early")
        assert dict(one.files) == {"model": runs["cox"] / "fold_1" / FILE}
        assert one.membership is not None
        assert one.shares_encoder


def test_a_run_is_all_its_folds_with_the_scales_of_their_risks(runs):
    cox, subtype = load_models(runs["cox"]), load_models(runs["subtype"])
    assert (cox.folds, cox.ensemble, cox.shares_encoder) == ((0, 1), True, False)
    assert [cox.unit(place) for place in (0, 1)] == [1 / scale.sd for scale in cox.scales]
    assert (subtype.scales, subtype.shares_encoder, subtype.unit(0)) == ((), True, 1.0)
    assert RiskScale(3.0, 0.0).unit == 0.0


def test_a_file_outside_of_a_run_is_explained_slide_by_slide(runs, tmp_path):
    shutil.copy(runs["cox"] / "fold_0" / FILE, tmp_path / FILE)
    for path in (tmp_path, tmp_path / FILE):
        one = load_models(path)
        assert (one.folds, one.fusion, one.membership) == ((), "late", None)


def unfinished(runs, tmp_path):
    shutil.copytree(runs["cox"], tmp_path / "run")
    (tmp_path / "run" / "predictions.csv").unlink()
    return {"model": tmp_path / "run"}


def without_models(runs, tmp_path):
    given = unfinished(runs, tmp_path)
    for fold in ("fold_0", "fold_1"):
        shutil.rmtree(given["model"] / fold)
    return given | {"fold": 0}


def other_scale(runs, tmp_path):
    model = load_model(runs["cox"] / "fold_0" / FILE)
    model.required_encoder.trained_on = StoreScale(mpp=1.0, tile_px=64)
    save_model(tmp_path / FILE, model)
    return {"model": tmp_path}


def without_patient(runs, tmp_path):
    (tmp_path / "table.csv").write_text("case_id,slide_id\nQ,N0\n")
    return {"table": tmp_path / "table.csv"}


REFUSED = {
    "fold that the run does not have": (
        lambda runs, _: {"fold": 7}, ConfigError, "the run has no model of fold 7", "choose from the folds 0, 1"),
    "fold of a fold": (
        lambda runs, _: {"model": runs["cox"] / "fold_0", "fold": 0}, ConfigError, "model of one fold", "leave fold"),
    "no run": (lambda _, tmp_path: {"model": tmp_path}, CheckpointError, "not the folder of a run", "finished `lo"),
    "unfinished run": (unfinished, CheckpointError, "the run is not finished", "folder of a finished"),
    "run without models": (without_models, CheckpointError, "the run is not finished", "folder of a finished"),
    "faithfulness of a run": (
        lambda *_: {"faithfulness": True}, ConfigError, "faithfulness follows the output of one model", "fold: 0"),
    "class of survival": (lambda *_: {"target": "LUAD"}, ConfigError, "no class LUAD", "leave target out"),
    "stores of another scale": (other_scale, StoreError, "was trained on tiles of 64 pixels at 1 um", "tile the"),
    "slides without a patient": (without_patient, CohortError, "2 of 3 stores have no patient", "add a row"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_with_one_sentence_before_anything_is_written(case, runs, settings, tmp_path):
    change, kind, what, fix = REFUSED[case]
    with pytest.raises(PipelineError, match=what) as error:
        run(ExplainConfig(**settings | {"model": runs["cox"]} | change(runs, tmp_path)))
    assert type(error.value) is kind
    assert fix in error.value.fix
    assert not settings["out"].exists()


def test_a_model_that_cannot_be_read_is_named_and_the_others_are_explained(runs, settings, titles, tmp_path):
    shutil.copytree(runs["subtype"], tmp_path / "run")
    (tmp_path / "run" / "fold_1" / FILE).write_bytes(b"damaged")
    explained = run(ExplainConfig(model=tmp_path / "run", **settings | {"methods": ("received",)}))
    assert list(explained.failed) == ["fold_1"]
    assert list(explained.folders) == ["N0", "N1", "N2"]
    with pytest.raises(CheckpointError, match="not safetensors"):
        run(ExplainConfig(model=tmp_path / "run", fold=1, **settings))
