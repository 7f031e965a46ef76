"""Law: stores, encoders and runs of version 0.1.0 open in every later version, and give the same numbers."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from longvit.cli.app import run_command
from longvit.config import ExecutionConfig, FinetuneConfig
from longvit.config.yaml_files import load_yaml
from longvit.explanation.files import file_names
from longvit.formats.audit_json import read_audit
from longvit.formats.explanation_json import ExplanationFolder
from longvit.formats.membership_csv import read_membership
from longvit.formats.metrics_json import read_metrics
from longvit.formats.run_json import read_starts
from longvit.runs.input_hashes import RecordedInputs, store_identity
from preprocessing import find_stores, open_store, problems

FOLDER = Path(__file__).with_name("version_0_1")
EXPLAINED = FOLDER / "explain" / "P08-0"
ID = ["patient_id", "slide_id", "fold", "split", "seen_by", "models"]


@pytest.fixture
def kept(tmp_path) -> Path:
    shutil.copytree(FOLDER, tmp_path / "kept")
    return tmp_path / "kept"


def test_stores_open_and_are_whole():
    stores = find_stores(FOLDER / "stores")
    assert sorted(stores) == ["P08-0", "P09-0"]
    assert [problems(path) for path in stores.values()] == [[], []]
    assert [len(open_store(path)) for path in stores.values()] == [6, 6]
    assert open_store(stores["P08-0"]).read_tiles([0]).shape == (1, 64, 64, 3)


def test_an_encoder_gives_the_same_vectors(kept, tmp_path):
    command = ["encode", "--stores", kept / "stores", "--checkpoint", kept / "encoder.safetensors", "--device", "cpu"]
    assert run_command([*map(str, command), "--out", str(tmp_path / "encode")]) == 0
    ours = pd.read_csv(tmp_path / "encode" / "representations.csv")
    theirs = pd.read_csv(FOLDER / "representations.csv")
    theirs = theirs[theirs["slide_id"].isin(["P08-0", "P09-0"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_run_predicts_the_same(kept, tmp_path):
    command = ["predict", "--run", kept / "finetune", "--stores", kept / "stores", "--accept", "seen"]
    assert run_command([*map(str, command), "--device", "cpu", "--out", str(tmp_path / "predict")]) == 0
    ours, theirs = pd.read_csv(tmp_path / "predict" / "predictions.csv"), pd.read_csv(FOLDER / "predicted.csv")
    pd.testing.assert_frame_equal(ours[ID], theirs[ID])
    pd.testing.assert_frame_equal(ours.drop(columns=ID), theirs.drop(columns=ID), rtol=1e-4, atol=1e-6)


def test_an_evaluation_has_the_same_numbers(kept):
    theirs = read_metrics(FOLDER / "finetune")
    assert run_command(["evaluate", str(kept / "finetune" / "predictions.csv")]) == 0
    ours = read_metrics(kept / "finetune")
    assert ours.pooled == {name: pytest.approx(number) for name, number in theirs.pooled.items()}
    assert ours.mean == {name: pytest.approx(number) for name, number in theirs.mean.items()}
    assert (ours.classes, ours.confusion, ours.class_counts) == (theirs.classes, theirs.confusion, theirs.class_counts)


def test_an_explanation_is_the_same_and_is_not_computed_again(kept, tmp_path, capsys):
    model, store = kept / "finetune" / "fold_0" / "model.safetensors", kept / "stores" / "P08-0.zarr"
    command = ["explain", "--model", model, "--store", store, "--device", "cpu", "--overlay-mpp", 4, "--sheet-tiles", 2]
    for layer in ExplanationFolder.read(kept / "explain" / "P08-0").layers:
        for name in file_names(layer.key) if layer.layer is None else ():
            (kept / "explain" / "P08-0" / name).touch()  # pictures are not kept here
    assert run_command([*map(str, command), "--out", str(kept / "explain")]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert run_command([*map(str, command), "--out", str(tmp_path / "again")]) == 0
    ours, theirs = pd.read_csv(tmp_path / "again" / "P08-0" / "scores.csv"), pd.read_csv(EXPLAINED / "scores.csv")
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_other_files_of_a_run_open():
    run = FOLDER / "finetune"
    assert read_starts(run)[0]["longvit"] == "0.1.0"
    assert [row["patients"] for row in read_audit(run).counts] == [6, 2, 4] * 2
    assert len(read_membership(run).members) == 14
    assert load_yaml(run / "config.yaml", FinetuneConfig).execution == ExecutionConfig()
    recorded = RecordedInputs.read(run / "inputs.json").stores
    for slide, path in find_stores(FOLDER / "stores").items():
        assert store_identity(path) == recorded[slide]
