"""Law: stores, encoders and runs of version 0.1.0 open in every later version, and give the same numbers."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from longvit.cli.app import run_command
from longvit.evaluation import evaluate_predictions
from preprocessing import find_stores, open_store, problems

FOLDER = Path(__file__).with_name("version_0_1")
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
    theirs = theirs[theirs["slide_id"].isin(ours["slide_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_run_predicts_the_same(kept, tmp_path):
    command = ["predict", "--run", kept / "finetune", "--stores", kept / "stores", "--accept", "seen"]
    assert run_command([*map(str, command), "--device", "cpu", "--out", str(tmp_path / "predict")]) == 0
    ours, theirs = pd.read_csv(tmp_path / "predict" / "predictions.csv"), pd.read_csv(FOLDER / "predicted.csv")
    pd.testing.assert_frame_equal(ours[ID], theirs[ID])
    pd.testing.assert_frame_equal(ours.drop(columns=ID), theirs.drop(columns=ID), rtol=1e-4, atol=1e-6)


def test_predictions_are_evaluated():
    assert evaluate_predictions(FOLDER / "finetune" / "predictions.csv", "test")["split"] == "test"
