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


def commands(root: Path, slides: Path, cohort, encoder: Path) -> list[list[str]]:
    """Command lines whose results are in `root`."""
    given = f"--stores {cohort.stores} --device cpu"
    train = f"--table {cohort.table} --splits {cohort.splits} --folds 0 --optimiser.epochs 1 --loader-workers 1"
    model, store = root / "run" / "fold_0" / "model.safetensors", sorted(cohort.stores.iterdir())[0]
    tile = f"tile --slides {slides} --out {root / 'stores'} --workers 2 --export-masks geojson"
    lines = [
        tile,
        f"{tile} --overwrite",
        f"split --table {cohort.table} --out {root / 'splits'} --folds 3",
        f"finetune {given} --checkpoint {encoder} --out {root / 'run'} {train}",
        f"encode {given} --checkpoint {encoder} --out {root / 'encoded'}",
        f"evaluate {root / 'run' / 'predictions.csv'}",
        f"explain --model {model} --store {store} --out {root / 'explained'} --device cpu --methods contribution",
    ]
    return [line.split() for line in lines]


def written(root: Path) -> dict[str, bytes]:
    files = {path.relative_to(root): path for path in sorted(root.rglob("*")) if path.is_file()}
    kept = {
        place: path for place, path in files.items() if place.name not in DIFFER and "tensorboard" not in place.parts
    }
    return {str(place): path.read_bytes() for place, path in kept.items()}


@pytest.fixture(scope="module")
def projects(cohort, tiny_encoder, tmp_path_factory) -> tuple[Path, Path]:
    """Results of the same commands, here and in a Python that is like Windows."""
    if not SLIDE.exists():
        pytest.skip("no shared slides beside this checkout (../shared/data/slides)")
    root = tmp_path_factory.mktemp("windows")
    slides = root / "slides"
    slides.mkdir()
    (slides / SLIDE.name).symlink_to(SLIDE.resolve())
    save_encoder(root / "encoder.safetensors", LongViT(tiny_encoder))
    here, there = ((root / name, commands(root / name, slides, cohort, root / "encoder.safetensors")) for name in "ab")
    for command in here[1]:
        assert run_command(command) == 0, command
    path = os.pathsep.join([str(LIKE_WINDOWS), str(Path(__file__).parents[2])])
    result = subprocess.run(
        [sys.executable, LIKE_WINDOWS / "every_module.py"],
        input=json.dumps(there[1]),
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="cp1252",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return here[0], there[0]


def test_every_module_loads_and_the_verbs_write_the_same_bytes(projects):
    ours, theirs = map(written, projects)
    assert len(ours) > 20
    assert ours.keys() == theirs.keys()
    assert [place for place, content in ours.items() if theirs[place] != content] == []
