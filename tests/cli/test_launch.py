"""`--devices` starts the processes of a mesh, and ends with the exit code of the first that fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from longvit.cli.launch import launch, launched
from preprocessing.errors import ConfigError

OLD = Path(__file__).parents[1] / "version_0_1"


PATIENCE = 60
"""Longest time that a test waits, seconds."""


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "longvit", *map(str, arguments)]


def longvit(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, check=False)


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


def test_windows_starts_no_processes(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="one process only") as refused:
        launch(["encode"], 2)
    assert refused.value.where == "--devices 2"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_is_left_after_its_launcher_is_interrupted_or_killed(number, code, tmp_path):
    out = tmp_path / "out"
    shape = "--encoder.width 16 --encoder.depth 1 --encoder.heads 2 --device cpu"
    patches = "--encoder.input.kind pixels --encoder.input.patch-px 16"
    views = "--views.region-px 64 --views.global-px 64 --views.local-px 32 --views.local-views 0"
    steps = "--batch-size 2 --optimiser.epochs 100000 --optimiser.warmup-epochs 0 --objective.kind masked"
    words = f"pretrain --stores {OLD / 'stores'} --out {out} --devices 2 {shape} {patches} {views} {steps}".split()
    with open(tmp_path / "said", "w") as said:
        launcher = subprocess.Popen(command(*words), env=environment(), stdout=said, stderr=said)
    deadline = time.monotonic() + PATIENCE
    while not (out / "metrics.csv").exists():
        assert launcher.poll() is None, (tmp_path / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = psutil.Process(launcher.pid).children(recursive=True)
    assert len(started) >= 2
    launcher.send_signal(number)
    assert launcher.wait(PATIENCE) == code
    assert psutil.wait_procs(started, PATIENCE)[1] == []
    said = (tmp_path / "said").read_text()
    assert said.count("interrupted (SIGINT)" if number == signal.SIGINT else "interrupted (SIGTERM)") >= 1
    assert "Traceback" not in said
    assert [path.name for path in out.rglob(".*")] == []
