"""Law: without modules, calls and signals that Windows lacks, all modules load, and verbs write the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longvit.cli.app import run_command
from longvit.model import LongViT, save_encoder

LIKE_WINDOWS = Path(__file__).with_name("like_windows")
SLIDE = Path(__file__).parents[2] / ".." / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
DIFFER = {"inputs.json", "run.json", "timing.csv", "tile_report.csv", "config.yaml"}
"""Files with times, or with the paths of the command."""


def commands(root: Path, slides: Path, cohort, encoder: Path, workers: int) -> list[list[str]]:
    """Command lines whose results are in `root`; with `workers` more verbs, whose processes tile and read."""
    given = f"--stores {cohort.stores} --device cpu"
    train = f"--table {cohort.table} --splits {cohort.splits} --folds 0 --optimiser.epochs 1"
    model, store = root / "run" / "fold_0" / "model.safetensors", sorted(cohort.stores.iterdir())[0]
    tile = f"tile --slides {slides} --out {root / 'stores'} --workers {workers + 1} --export-masks geojson"
    lines = [
        tile,
        f"{tile} --overwrite",
        f"split --table {cohort.table} --out {root / 'splits'} --folds 3",
        f"encode {given} --checkpoint {encoder} --out {root / 'encoded'}",
        f"finetune {given} --checkpoint {encoder} --out {root / 'run'} {train} --loader-workers {workers}",
        f"evaluate {root / 'run' / 'predictions.csv'}",
        f"explain --model {model} --store {store} --out {root / 'explained'} --device cpu --methods contribution",
    ]
    return [line.split() for line in (lines if workers else lines[:4])]


def written(root: Path) -> dict[str, bytes]:
    files = {path.relative_to(root): path for path in sorted(root.rglob("*")) if path.is_file()}
    kept = {
        place: path for place, path in files.items() if place.name not in DIFFER and "tensorboard" not in place.parts
    }
    return {str(place): path.read_bytes() for place, path in kept.items()}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_every_module_loads_and_the_verbs_write_the_same_bytes(workers, cohort, tiny_encoder, save_slide, tmp_path):
    if SLIDE.exists():
        (tmp_path / "slides").mkdir()
        (tmp_path / "slides" / SLIDE.name).symlink_to(SLIDE.resolve())
    else:
        save_slide(tmp_path / "slides" / "S.svs")
    save_encoder(tmp_path / "encoder.safetensors", LongViT(tiny_encoder))
    given = tmp_path / "slides", cohort, tmp_path / "encoder.safetensors", workers
    for command in commands(tmp_path / "here", *given):
        assert run_command(command) == 0, command
    path = os.pathsep.join([str(LIKE_WINDOWS), str(Path(__file__).parents[2])])
    result = subprocess.run(
        [sys.executable, LIKE_WINDOWS / "every_module.py"],
        input=json.dumps(commands(tmp_path / "there", *given)).encode(),
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode("cp1252", "replace")
    ours, theirs = written(tmp_path / "here"), written(tmp_path / "there")
    assert len(ours) > 10
    assert ours.keys() == theirs.keys()
    assert [place for place, content in ours.items() if theirs[place] != content] == []


LACKS = """
import os
assert not hasattr(os, "pread")
os.mkdir("a"); os.mkdir("b")
with open("a/file", "w") as file:
    for call in (lambda: os.unlink("a/file"), lambda: os.rename("a", "c"), lambda: os.replace("a/file", "b/file")):
        try: call()
        except PermissionError: print("refused")
try: os.rename("a", "b")
except FileExistsError: print("refused")
os.rename("a", "c"); os.unlink("c/file"); os.rmdir("c")
try: import fcntl
except ImportError: print("refused")
"""


def test_the_python_that_is_like_windows_refuses_what_windows_refuses(tmp_path):
    env = os.environ | {"PYTHONPATH": str(LIKE_WINDOWS)}
    said = subprocess.run(
        [sys.executable, "-c", LACKS], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["refused"] * 5
