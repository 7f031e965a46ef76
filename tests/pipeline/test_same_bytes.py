"""Equal runs write equal bytes, in other folders, under other hash seeds, and nobody's name."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from preprocessing.synthetic.cohort import CohortPaths, make_cohort

USER, HOST = "alice-the-user", "host-of-alice"
DIFFER = {
    "inputs.json": "the time at which the inputs were recorded",
    "run.json": "the time of every start",
    "timing.csv": "seconds",
    "tile_report.csv": "seconds of every slide",
    "tensorboard/*": "the time of every value, and in the files' names",
    "output.txt": "a progress bar with its time; of parallel folds",
}
"""Files that may differ between equal runs, and why: `longvit/README.md` has the same list."""
PRIVATE = {"config.yaml": "paths as the user wrote them, so that the run can be repeated"}
"""Files that hold paths of the machine."""
ENCODER = "--encoder.width 32 --encoder.depth 2 --encoder.heads 4 --encoder.segment-lengths 64 256"
ENCODER += " --encoder.dilation-ratios 1 2"
DINO = "--objective.kind dino --objective.prototypes 64 --objective.hidden 32 --objective.bottleneck 16"
DINO += " --views.region-px 256 --views.global-px 128 --views.local-px 64 --views.local-views 2"
HERE = "--device cpu --loader-workers 0"
METHODS = "contribution received rollout gradient integrated_gradients occlusion"


def cheap(at: str) -> list[str]:
    """Command lines of the verbs that load no torch, on the cohort in the folder `at`."""
    table = f"--table {at}cohort/dataset.csv"
    return [
        f"tile --slides {at}cohort/slides --out {at}stores --tile-px 128 --workers 2 --export-masks geojson",
        f"split {table} --out {at}splits --folds 3",
        f"audit {table} --splits {at}cohort/splits --stores {at}stores --out {at}audited",
        f"view {at}stores --static {at}slides --max-px 256",
        f"evaluate {at}predictions.csv --out {at}evaluated",
    ]


def costly(at: str) -> list[str]:
    """Command lines of the others, and of those above on what these leave."""
    given = f"--table {at}cohort/dataset.csv --splits {at}cohort/splits --stores {at}stores {HERE}"
    encoder = f"--checkpoint {at}pretrain/encoder.safetensors"
    few = "--optimiser.epochs 2 --batch-size 8 --regions-per-slide 1"
    slide = f"{at}stores/SYN-0000-01Z-00-DX1.zarr"
    parallel = "--parallel-folds 2 --folds 0 1"
    model = f"{at}subtype/fold_0/model.safetensors"
    explain = f"explain --model {model} --store {slide} --device cpu --methods {METHODS} --faithfulness"
    return [
        f"pretrain --stores {at}stores --out {at}pretrain {few} {ENCODER} {DINO} {HERE}",
        f"finetune --out {at}subtype {given} {encoder} --trained-blocks 0 --shuffles 1 --baselines abmil mean",
        f"finetune --out {at}survival {given} {encoder} --task.kind cox --optimiser.epochs 1 {parallel}",
        f"finetune --out {at}best {given} {ENCODER} --select best_val --folds 0 --optimiser.epochs 2",
        f"predict --run {at}subtype --stores {at}stores --out {at}predicted --accept seen --device cpu",
        f"encode --stores {at}stores --out {at}encoded --keep-tokens {encoder} --device cpu",
        f"evaluate {at}subtype/predictions.csv",
        f"evaluate {at}survival/predictions.csv",
        f"{explain} --out {at}explained",
        f"view {at}survival --explanations {at}explained --static {at}page --max-px 512",
    ]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> CohortPaths:
    return make_cohort(tmp_path_factory.mktemp("drawn") / "cohort", patients=12, folds=3, side_l0=1024)


@pytest.fixture
def run_twice(cohort, tmp_path) -> Callable[[Sequence[Callable[[str], list[str]]]], tuple[Path, Path]]:
    """(makers of command lines) -> two projects, of which one names its files relatively, the other absolutely."""

    def run(makers: Sequence[Callable[[str], list[str]]]) -> tuple[Path, Path]:
        projects = (tmp_path / USER / "one", tmp_path / USER / "another-project")
        for seed, project in enumerate(projects):
            shutil.copytree(cohort.slides.parent, project / "cohort")
            write_predictions(project / "predictions.csv")
            lines = [line for maker in makers for line in maker(f"{project}/" if seed else "")]
            subprocess.run(
                [sys.executable, Path(__file__).with_name("run_verbs.py")],
                input=json.dumps([line.split() for line in lines]),
                env=os.environ | {"PYTHONHASHSEED": str(seed), "USER": USER, "LOGNAME": USER, "OMP_NUM_THREADS": "1"},
                cwd=project,
                check=True,
                text=True,
                stdout=subprocess.DEVNULL,
            )
        return projects

    return run


def write_predictions(path: Path) -> None:
    rows = [f"P{i},S{i},{i % 3},test,{'AB'[i % 2]},{0.9 - 0.07 * i:.2f},{0.1 + 0.07 * i:.2f}" for i in range(12)]
    path.write_text("\n".join(["patient_id,slide_id,fold,split,label,p_A,p_B", *rows]) + "\n")


def written(project: Path) -> dict[str, Path]:
    """What the verbs have written, by place."""
    files = {str(path.relative_to(project)): path for path in sorted(project.rglob("*")) if path.is_file()}
    return {place: path for place, path in files.items() if not place.startswith(("cohort/", "predictions.csv"))}


def named(place: str, names: dict[str, str]) -> bool:
    return any(Path(place).match(name) for name in names)


def compare(one: Path, another: Path) -> None:
    ours, theirs = (written(project) for project in (one, another))
    assert {p for p in ours if not named(p, DIFFER)} == {p for p in theirs if not named(p, DIFFER)}
    for place, path in ours.items():
        if named(place, DIFFER):
            continue
        content = theirs[place].read_bytes()
        if named(place, PRIVATE):
            content = content.replace(f"{another}/".encode(), b"")
        assert path.read_bytes() == content, place


def search(project: Path, secrets: Sequence[str]) -> None:
    """Nothing that may be shared holds a secret, in its name or its bytes."""
    for place, path in written(project).items():
        content = path.read_bytes() + place.encode()
        found = [secret for secret in secrets if secret.encode() in content]
        assert named(place, PRIVATE) or not found, (place, found)


def test_cheap_verbs_write_the_same_bytes_again_and_no_name_of_the_machine(run_twice):
    one, another = run_twice([cheap])
    compare(one, another)
    for project in (one, another):
        search(project, [USER, HOST, str(project.parent)])
    assert (one / "slides" / "index.html").is_file()


@pytest.mark.slow
def test_every_verb_writes_the_same_bytes_again_and_no_name_of_the_machine(run_twice):
    one, another = run_twice([cheap, costly])
    compare(one, another)
    for project in (one, another):
        search(project, [USER, HOST, str(project.parent)])
    differing = {name for name in DIFFER if any(named(place, {name: ""}) for place in written(one))}
    assert differing == set(DIFFER)  # a file that no verb writes any more leaves the list


def test_the_readme_lists_what_differs_and_what_is_private():
    text = (Path(__file__).parents[2] / "longvit" / "README.md").read_text(encoding="utf-8")
    for name in (*DIFFER, *PRIVATE):
        assert re.search(rf"`{re.escape(name.removesuffix('*'))}`", text), name
