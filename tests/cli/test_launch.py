"""`--devices` starts the processes of a mesh, and ends with the exit code of the first that fails."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from longvit.cli.launch import launch, launched

OLD = Path(__file__).parents[1] / "version_0_1"


def longvit(*arguments: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "longvit", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_two_processes_encode_each_slide_together_as_one_process_does(tmp_path):
    inputs = ("--stores", OLD / "stores", "--checkpoint", OLD / "encoder.safetensors", "--device", "cpu")
    done = longvit("encode", *inputs, "--out", tmp_path, "--devices", 2, "--sequence-parallel", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("representations.csv") == 1, "the first process prints for all"
    found, expected = (pd.read_csv(folder / "representations.csv") for folder in (tmp_path, OLD))
    expected = expected[expected["slide_id"].isin(found["slide_id"])].reset_index(drop=True)
    assert len(found) == 2
    pd.testing.assert_frame_equal(found, expected, atol=2e-6)


def test_an_error_is_the_error_of_every_process_with_the_exit_code_of_an_error(tmp_path):
    inputs = ("--stores", OLD / "stores", "--checkpoint", OLD / "encoder.safetensors", "--device", "cpu")
    done = longvit("encode", *inputs, "--out", tmp_path / "out", "--devices", 2, "--sequence-parallel", 4)
    assert done.returncode == 2
    assert done.stderr.count("error: 4 ranks per sequence do not divide 2 processes") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, False), ({"TORCHELASTIC_RUN_ID": "x"}, True), ({"SLURM_NTASKS": "1"}, False), ({"SLURM_NTASKS": "4"}, True)],
)
def test_a_process_that_a_launcher_started_starts_no_others(environment, expected, monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() is expected


def test_the_exit_code_is_that_of_a_process_that_failed():
    assert launch(["encode", "--no-such-setting", "1"], 2) == 2
