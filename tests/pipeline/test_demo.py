"""`longvit demo` as a user starts it: what it finds was planted, and it finds nothing where labels are shuffled."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MINUTES = 6
FOUND = {("subtype", "auroc"): 0.90, ("survival", "c_index"): 0.70}
NOTHING = (0.35, 0.65)
"""Where a score without any signal lies on 40 patients, as a mean over shuffles."""


def start(folder: Path) -> tuple[subprocess.CompletedProcess, float]:
    """Run `longvit demo` in a folder; what it printed, and its seconds."""
    command = [sys.executable, "-c", "from longvit.cli.app import main; main()", "demo"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=MINUTES * 60, check=False)
    return done, time.monotonic() - began


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("demo")
    done, _ = start(folder)  # stopped if it takes longer than it may
    assert done.returncode == 0, done.stderr
    return folder / "demo", done


def pooled(out: Path, task: str, name: str) -> dict[str, float]:
    return json.loads((out / task / "metrics.json").read_text())["pooled"][name]


@pytest.mark.parametrize(("task", "name"), FOUND)
def test_it_finds_what_was_planted(demo, task, name):
    assert pooled(demo[0], task, name)["value"] >= FOUND[task, name]


@pytest.mark.parametrize(("task", "name"), FOUND)
def test_it_finds_nothing_in_shuffled_labels(demo, task, name):
    low, high = NOTHING
    assert low <= pooled(demo[0], task, name)["shuffled"] <= high


def test_every_patient_is_held_out_once(demo):
    for task in ("subtype", "survival"):
        metrics = json.loads((demo[0] / task / "metrics.json").read_text())
        assert (metrics["split"], metrics["n_patients"], len(metrics["folds"])) == ("test", 40, 5)
        assert metrics["n_shuffles"] > 0


def test_it_prints_both_numbers_and_where_to_look(demo):
    out, done = demo
    for task, name in FOUND:
        assert f"{pooled(out, task, name)['value']:.3f}" in done.stdout
    assert "demo/report.html" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_the_page_holds_both_tasks_and_the_heatmap_is_there(demo):
    out, _ = demo
    page = (out / "report.html").read_text()
    assert "<h2>Subtyping" in page
    assert "<h2>Survival</h2>" in page
    assert len(list((out / "explain").glob("*/overlay_*.png"))) >= 1


def test_a_second_start_trains_nothing_and_says_the_same(demo):
    out, done = demo
    results = [out / "pretrain" / "encoder.safetensors", *out.glob("*/fold_*/**/predictions.csv")]
    assert len(results) > 10
    before = {path: path.stat().st_mtime_ns for path in results}
    again, seconds = start(out.parent)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in results} == before
    assert again.stdout.splitlines()[-20:] == done.stdout.splitlines()[-20:]
    assert seconds < 120
