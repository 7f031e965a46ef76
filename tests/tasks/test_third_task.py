"""Law: a third task touches one file and the registry; the pipeline trains, predicts, evaluates and explains it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors import safe_open

SCRIPT, ROOT = Path(__file__).with_name("third_task.py"), Path(__file__).parents[2]
ENCODER = "--encoder.input.patch-px 16 --encoder.width 16 --encoder.depth 1 --encoder.heads 2"
TINY = f"{ENCODER} --encoder.segment-lengths 16 --encoder.dilation-ratios 1 --optimiser.epochs 2 --loader-workers 0"


@pytest.fixture(scope="module")
def out(cohort, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("third")
    given = f"--stores {cohort.stores} --device cpu"
    commands = [
        f"finetune --out {out}/run {given} --table {cohort.table} --splits {cohort.splits} {TINY} --baselines mean "
        "--task.kind binary --task.sharpness 2 --encoder.input.kind pixels",
        f"predict --run {out}/run --out {out}/new {given} --accept seen",
        f"evaluate --predictions {out}/run/predictions.csv --out {out}/report",
        f"explain --model {out}/run/fold_0/model.safetensors --store {cohort.stores}/P00-0.zarr --out {out}/maps "
        "--device cpu --overlay-mpp 4 --methods contribution",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, SCRIPT, *commands], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_it_is_trained_with_its_own_statistics_which_its_file_holds(out):
    with safe_open(out / "run" / "fold_0" / "model.safetensors", "pt") as file:
        settings = json.loads(file.metadata()["longvit_model"])
        assert file.get_tensor("head.linear.weight").shape == (1, 16)
        assert file.get_tensor("head.linear.weight").any()
    assert settings["statistics"] == {"odds": [1.0]}
    assert settings["task"]["sharpness"] == 2


@pytest.mark.parametrize("name", ["run/predictions.csv", "run/baselines/mean/predictions.csv", "new/predictions.csv"])
def test_it_predicts(out, name):
    table = pd.read_csv(out / name)
    assert len(table) > 10
    assert (table["p_LUAD"] + table["p_LUSC"]).tolist() == pytest.approx([1.0] * len(table))
    assert table["p_LUSC"].nunique() > 1


def test_it_is_evaluated_and_explained(out):
    assert json.loads((out / "report" / "metrics.json").read_text())
    scores = pd.read_csv(next(out.rglob("scores.csv")))
    assert scores["contribution"].abs().sum() > 0
