"""Law: a thousand finished slides, many deaths and many runs at once end in the stores of an undisturbed run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preprocessing.config import TileConfig
from preprocessing.tile import run, tile_or_skip
from preprocessing.tiling.manifest import read_manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to find processes in"),
]

TILE = "from longvit.cli.app import main; main()"
SLIDES = 12


@pytest.fixture(scope="session")
def cohort(tmp_path_factory, svs) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for i in range(SLIDES):
        shutil.copy(svs, folder / f"slide {i:02}.svs")
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, cohort) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(TileConfig(slides=cohort, out=out, workers=1)).exit_code == 0
    return stores(out)


def start(slides: Path, out: Path, workers: int) -> subprocess.Popen:
    arguments = [sys.executable, "-c", TILE, "tile", "--slides", slides, "--out", out, "--workers", str(workers)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def stores(out: Path) -> dict[str, bytes]:
    """Every file of every store by its place; what begins with a dot, left by the dead, counts too."""
    files = (path for store in out.glob("*.zarr") for path in store.rglob("*") if path.is_file())
    return {
        str(path.relative_to(out)): path.read_bytes() if path.is_file() else b"" for path in (*files, *out.glob(".*"))
    }


def children_of(pid: int) -> list[int]:
    """Processes that `pid` started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended while we looked
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def workers_of(pid: int) -> list[int]:
    """Those of its children that tile: multiprocessing has one more, which tracks resources."""
    return [child for child in children_of(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def n_finished(out: Path) -> int:
    return len(list(out.glob("[!.]*.zarr")))


@pytest.mark.parametrize("workers", [1, 4])
def test_many_deaths_at_random_moments_lose_nothing_and_leave_no_process(tmp_path, cohort, undisturbed, workers):
    out, draw = tmp_path / "out", random.Random(workers)
    for _ in range(10):
        process = start(cohort, out, workers)
        time.sleep(draw.uniform(0.5, 3.0))
        children = children_of(process.pid)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < deadline, "a worker outlived its run"
            time.sleep(0.05)
        finished = {place: data for place, data in stores(out).items() if not place.startswith(".")}
        assert finished.items() <= undisturbed.items()
    process = start(cohort, out, workers)
    process.communicate()
    assert process.returncode == 0
    assert stores(out) == undisturbed


def test_workers_that_are_killed_as_if_memory_were_short_lose_nothing(tmp_path, cohort, undisturbed):
    out, killed = tmp_path / "out", 0
    process = start(cohort, out, 4)
    while process.poll() is None and killed < 3:
        if n_finished(out) > 2 * killed and (workers := workers_of(process.pid)):
            os.kill(workers[0], signal.SIGKILL)
            killed += 1
        time.sleep(0.005)
    said, _ = process.communicate()
    assert killed == 3
    assert process.returncode == 0
    assert f"{SLIDES} slides: 0 failed" in said
    assert stores(out) == undisturbed


def test_an_array_of_runs_over_one_folder_tiles_every_slide_once(tmp_path, cohort, undisturbed):
    out = tmp_path / "out"
    array = [start(cohort, out, 1) for _ in range(4)]
    said = [process.communicate()[0] for process in array]
    assert [process.returncode for process in array] == [0] * 4
    assert sum(int(text.split(" failed, ")[1].split(" done")[0]) for text in said) == SLIDES
    assert stores(out) == undisturbed


def test_a_thousand_finished_slides_are_skipped_in_under_ten_milliseconds_each(tmp_path, svs):
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    shutil.copy(svs, slides / "s0000.svs")
    assert run(TileConfig(slides=slides, out=out, workers=1)).exit_code == 0
    for i in range(1, 1000):
        (slides / f"s{i:04}.svs").hardlink_to(slides / "s0000.svs")
        copy = shutil.copytree(out / "s0000.zarr", out / f"s{i:04}.zarr")
        document = copy / "zarr.json"
        text = document.read_text(encoding="utf-8").replace("s0000", f"s{i:04}")
        document.write_text(text, encoding="utf-8")
        shutil.copy(out / "tile_report" / "s0000.jpg", out / "tile_report" / f"s{i:04}.jpg")
    config = TileConfig(slides=slides, out=out, workers=1)
    begun = time.perf_counter()
    assert {tile_or_skip(entry, config).status for entry in read_manifest(slides)} == {"skipped"}
    looking, begun = time.perf_counter() - begun, time.perf_counter()
    assert {row.status for row in run(config).rows} == {"skipped"}
    whole = time.perf_counter() - begun
    print(f"1,000 finished slides: looking {looking:.2f} s, the whole run with its report {whole:.2f} s")
    assert looking < 10
    assert whole < 10
