"""Law: no fault leaves half a store: killed processes, full disks, files that change, vanish or belong to others."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

import preprocessing.tile
from preprocessing.config import TileConfig
from preprocessing.errors import OutputError
from preprocessing.store.store import open_store, problems
from preprocessing.tile import BUSY, run, tile_or_skip

SLIDES = 6
CLAIM = """
import sys
from pathlib import Path
from preprocessing.jobs.atomic_folder import claimed
with claimed(Path(sys.argv[1]), "file") as folder:
    (folder / "half").write_text("written")
    print("building", flush=True)
    sys.stdin.read()
"""
RUN = """
import sys
import preprocessing.tiling.tile_slide  # what takes its time, before the clock starts
from longvit.cli.app import main
if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    main()
"""


@pytest.fixture(scope="session")
def cohort(tmp_path_factory, svs) -> Path:
    """A folder of slides with names as people give them."""
    folder = tmp_path_factory.mktemp("cohort")
    for i in range(SLIDES):
        shutil.copy(svs, folder / f"größe {i}.svs")
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, cohort) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(TileConfig(slides=cohort, out=out, workers=1)).exit_code == 0
    return stores(out)


@pytest.fixture
def command(tmp_path):
    """Start `longvit tile`, imported and waiting for `go`; killed at the end of the test if it still runs."""
    script = tmp_path / "command.py"
    script.write_text(RUN)
    started = []

    def start(slides: Path, out: Path, *flags: str) -> subprocess.Popen:
        arguments = [sys.executable, script, "tile", "--slides", slides, "--out", out, *flags]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(arguments, text=True, **pipes)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


def stores(out: Path) -> dict[str, bytes]:
    """Every file of every store by its place; what begins with a dot, left by the dead, counts too."""
    files = (path for store in out.glob("*.zarr") for path in store.rglob("*") if path.is_file())
    hidden = out.glob(".*")
    return {str(path.relative_to(out)): path.read_bytes() if path.is_file() else b"" for path in (*files, *hidden)}


def visible_problems(out: Path) -> dict[str, list[str]]:
    return {path.name: found for path in out.glob("[!.]*.zarr") if (found := problems(path))}


def tile_one(slide: Path, out: Path, **settings):
    return run(TileConfig(slides=slide, out=out, **{"workers": 1} | settings)).rows[0]


def only(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if not path.name.startswith("tile_report")}


def test_a_run_killed_again_and_again_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, cohort, undisturbed, command):
    out = tmp_path / "out"
    for finished, then in ((0, 0.0), (1, 0.02), (2, 0.04)):
        process = command(cohort, out, "--workers", "1")
        go(process)
        wait_for(lambda least=finished: list(out.glob(".*.partial")) and len(list(out.glob("[!.]*.zarr"))) >= least)
        time.sleep(then)
        process.kill()
        process.wait()
        assert visible_problems(out) == {}
    assert len(stores(out)) < len(undisturbed)
    process = command(cohort, out, "--workers", "4")
    go(process)
    assert finish(process)[0] == 0
    assert stores(out) == undisturbed


def test_two_runs_over_one_folder_share_its_slides(tmp_path, cohort, undisturbed, command):
    both = [command(cohort, tmp_path / "out", "--workers", "1") for _ in range(2)]
    for process in both:
        go(process)
    ends = [finish(process) for process in both]
    assert [code for code, _, _ in ends] == [0, 0]
    done = [int(out.split(" failed, ")[1].split(" done")[0]) for _, out, _ in ends]
    assert sum(done) == SLIDES
    assert stores(tmp_path / "out") == undisturbed
    with (tmp_path / "out" / "tile_report.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == SLIDES


def test_a_slide_that_another_process_tiles_is_left_to_it_and_is_no_failure(tmp_path, cohort):
    out, slide = tmp_path / "out", cohort / "größe 0.svs"
    arguments = [sys.executable, "-c", CLAIM, out / "größe 0.zarr"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"building\n"
        report = run(TileConfig(slides=slide, out=out, workers=1))
        other.kill()
    assert [(row.status, row.reason) for row in report.rows] == [("skipped", BUSY)]
    assert report.exit_code == 0
    assert BUSY in report.page_path.read_text(encoding="utf-8")
    assert tile_one(slide, out).status == "done"  # its owner is dead now


def test_a_full_disk_fails_the_slide_and_leaves_nothing_of_it(cohort, small_disk):
    disk, remount = small_disk
    slide = cohort / "größe 0.svs"
    (disk / "filler").write_bytes(bytes(900_000))
    row = tile_or_skip(preprocessing.tile.read_manifest(slide)[0], TileConfig(slides=slide, out=disk))
    assert (row.status, row.reason) == ("failed", "cannot write: No space left on device")
    assert "room" in row.fix
    assert only(disk) == {"filler"}
    (disk / "filler").write_bytes(bytes((1 << 20) - 4096))
    with pytest.raises(OutputError, match="No space left on device"):
        run(TileConfig(slides=slide, out=disk, workers=1))
    remount("size=8m")
    assert tile_one(slide, disk).status == "done"


def test_a_read_only_folder_is_said_and_what_is_finished_there_is_still_skipped(cohort, small_disk):
    disk, remount = small_disk
    remount("size=8m")
    entries = [preprocessing.tile.read_manifest(cohort / f"größe {i}.svs")[0] for i in range(2)]
    config = TileConfig(slides=cohort, out=disk)
    assert tile_or_skip(entries[0], config).status == "done"
    remount("ro")
    assert tile_or_skip(entries[0], config).status == "skipped"
    row = tile_or_skip(entries[1], config)
    assert (row.status, row.reason.split(": /")[0]) == ("failed", "Read-only file system")
    with pytest.raises(OutputError, match="cannot write: Read-only file system"):
        run(TileConfig(slides=cohort, out=disk, workers=1))
    remount("rw")


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, "1"), (signal.SIGTERM, "1"), (signal.SIGTERM, "4")])
def test_an_interrupted_run_stops_at_once_tidily_and_says_how_to_go_on(
    tmp_path, cohort, undisturbed, command, number, workers
):
    out = tmp_path / "out"
    process = command(cohort, out, "--workers", workers)
    go(process)
    wait_for(lambda: list(out.glob("[!.]*.zarr")))
    process.send_signal(number)
    begun = time.monotonic()
    code, _, err = finish(process)
    assert time.monotonic() - begun < 5
    assert code == 128 + number, err
    assert "the same command resumes from there" in err
    assert visible_problems(out) == {}
    assert run(TileConfig(slides=cohort, out=out, workers=1)).exit_code == 0
    assert stores(out) == undisturbed


def test_a_slide_that_was_replaced_by_one_of_the_same_size_is_tiled_again(tmp_path, svs):
    slide, out = Path(shutil.copy(svs, tmp_path / "slide.svs")), tmp_path / "out"
    first = tile_one(slide, out)
    slide.write_bytes(slide.read_bytes().replace(b"AppMag = 20", b"AppMag = 40"))
    again = tile_one(slide, out)
    assert (first.status, again.status, again.reason) == ("done", "done", "the slide has changed")


def test_a_slide_that_was_copied_anew_is_read_once_to_see_that_it_is_the_same(tmp_path, svs):
    slide, out = Path(shutil.copy(svs, tmp_path / "slide.svs")), tmp_path / "out"
    tile_one(slide, out)
    before = stores(out)
    later = time.time_ns() + 10**12
    os.utime(slide, ns=(later, later))
    assert tile_one(slide, out).status == "skipped"
    assert (out / "slide.zarr" / "zarr.json").stat().st_mtime_ns == later  # so that the next run need not read it
    assert stores(out) == before


@pytest.mark.parametrize("change", [lambda slide: slide.unlink(), lambda slide: os.utime(slide, (0, 0))])
def test_a_slide_that_changes_while_it_is_tiled_leaves_no_store(tmp_path, svs, monkeypatch, change):
    slide, out = Path(shutil.copy(svs, tmp_path / "slide.svs")), tmp_path / "out"
    real = preprocessing.tile.tile_slide

    def meanwhile(*arguments):
        attributes = real(*arguments)
        change(slide)
        return attributes

    monkeypatch.setattr(preprocessing.tile, "tile_slide", meanwhile)
    row = tile_one(slide, out)
    assert (row.status, row.reason) == ("failed", "the slide changed or vanished while it was read")
    assert only(out) == set()


def damage(slide: Path, xy: tuple[int, int], out: Path) -> Path:
    """A copy in which the JPEG of level 0 that covers the pixel `xy` is noise; on the overview all is well."""
    data = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        i = xy[1] // page.tilelength * across + xy[0] // page.tilewidth
        offset, length = page.dataoffsets[i], page.databytecounts[i]
    data[offset : offset + length] = np.random.default_rng(0).bytes(length)
    out.write_bytes(data)
    return out


def test_a_tile_that_cannot_be_decoded_fails_its_slide_by_place(tmp_path, svs):
    row = tile_one(damage(svs, (600, 500), tmp_path / "slide.svs"), tmp_path / "out", workers=2)
    assert row.status == "failed"
    assert row.reason.startswith("cannot decode level 0 at x=")
    assert "y=" in row.reason
    assert "copy it again" in row.fix
    assert only(tmp_path / "out") == set()


def test_tolerated_bad_tiles_are_left_out_named_and_neither_black_nor_white(tmp_path, svs):
    slide, out = damage(svs, (600, 500), tmp_path / "slide.svs"), tmp_path / "out"
    good = open_store_of(svs, tmp_path / "good")
    row = tile_one(slide, out, tolerate_bad_tiles=4)
    store = open_store(out / "slide.zarr")
    left_out = len(good) - len(store)
    assert (row.status, problems(store.path)) == ("done", [])
    assert 1 <= left_out <= 4
    assert f"{left_out} damaged tiles left out: cannot decode level 0 at x=" in row.warnings
    kept = [good.rc.tolist().index(rc) for rc in store.rc.tolist()]
    assert np.array_equal(store.read_tiles(range(len(store))), good.read_tiles(kept))
    assert tile_one(slide, tmp_path / "strict", tolerate_bad_tiles=left_out - 1).status == "failed"


def test_a_damaged_tile_that_the_overview_is_made_of_is_named_by_its_own_place_and_can_be_tolerated(tmp_path, image):
    flat, tag = tmp_path / "flat.tif", {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(flat, image, tile=(256, 256), photometric="rgb", compression="jpeg", **tag)  # one level
    slide, place = damage(flat, (600, 500), tmp_path / "slide.tif"), "cannot decode level 0 at x=512, y=256"
    row = tile_one(slide, tmp_path / "strict", workers=2)
    assert (row.status, row.reason[: len(place)]) == ("failed", place)
    row = tile_one(slide, tmp_path / "out", workers=2, tolerate_bad_tiles=1)
    assert row.status == "done"
    assert f"1 damaged tiles of the slide treated as glass: {place}" in row.warnings
    whole, left = (
        open_store_of(flat, tmp_path / "whole").rc.tolist(),
        open_store(tmp_path / "out/slide.zarr").rc.tolist(),
    )
    assert [rc for rc in whole if rc not in left] == [[1, 2]]


def open_store_of(slide: Path, out: Path):
    tile_one(slide, out)
    return open_store(out / f"{slide.stem}.zarr")


def test_what_other_programs_named_like_a_store_is_never_replaced(tmp_path, svs):
    theirs = tmp_path / "slide.zarr"
    theirs.mkdir()
    (theirs / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {}}}')
    row = tile_one(svs, tmp_path, overwrite=True)
    assert (row.status, row.reason.split(":")[0]) == ("failed", "another file or folder has this name")
    assert [path.name for path in theirs.iterdir()] == ["zarr.json"]
    shutil.rmtree(theirs)
    theirs.write_text("a file")
    assert tile_one(svs, tmp_path).status == "failed"
    assert theirs.read_text() == "a file"


def test_a_store_with_attributes_of_no_sense_is_tiled_again(tmp_path, svs):
    tile_one(svs, tmp_path)
    document = tmp_path / "slide.zarr" / "zarr.json"
    document.write_text(document.read_text().replace('"vendor"', '"seller"'))
    assert tile_one(svs, tmp_path).reason == "its store was damaged (attribute vendor: Field required)"
    assert problems(document.parent) == []


def test_a_link_to_a_slide_is_a_slide_and_a_store_behind_a_link_is_not_written(tmp_path, svs):
    (tmp_path / "link.svs").symlink_to(svs)
    tile_one(tmp_path / "link.svs", tmp_path / "elsewhere")
    before = stores(tmp_path / "elsewhere")
    out = tmp_path / "out"
    out.mkdir()
    (out / "link.zarr").symlink_to(tmp_path / "elsewhere" / "link.zarr")
    assert tile_one(tmp_path / "link.svs", out).status == "skipped"
    assert tile_one(tmp_path / "link.svs", out, overwrite=True).status == "done"
    assert not (out / "link.zarr").is_symlink()
    assert only(out) == {"link.zarr"}
    assert stores(tmp_path / "elsewhere") == before


def test_files_that_are_no_slides_are_named_one_by_one(tmp_path, svs, caplog):
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(svs, folder / "good.svs")
    (folder / "broken.svs").symlink_to(tmp_path / "gone")
    (folder / "empty.ndpi").touch()
    (folder / "half.svs").write_bytes(svs.read_bytes()[:4000])
    (folder / "most.svs").write_bytes(svs.read_bytes()[:-1000])
    os.mkfifo(folder / "pipe.svs")
    (tmp_path / "folder.svs").mkdir()
    names = "\n".join(f"{path.stem},{path}" for path in (*sorted(folder.iterdir()), tmp_path / "folder.svs"))
    (tmp_path / "cohort.csv").write_text(f"slide_id,path\n{names}\n")
    for slides in (folder, tmp_path / "cohort.csv"):
        rows = {row.slide_id: row for row in run(TileConfig(slides=slides, out=tmp_path / "out", workers=1)).rows}
        assert rows.pop("good").status in ("done", "skipped")
        assert {"broken", "empty", "half", "most", "pipe"} <= set(rows)
        assert all(row.status == "failed" and row.reason and row.fix for row in rows.values())
        assert not any("a fault of the program" in row.fix for row in rows.values())
    assert not caplog.records, "a library spoke of a file without naming it"


def test_a_file_that_may_not_be_read_is_named(tmp_path, svs):
    slide = Path(shutil.copy(svs, tmp_path / "slide.svs"))
    slide.chmod(0)
    code = (
        "import sys; from preprocessing.tile import run; from preprocessing.config import TileConfig;"
        "row = run(TileConfig(slides=sys.argv[1], out=sys.argv[2], workers=1)).rows[0];"
        "print(row.status, row.reason)"
    )
    arguments = [sys.executable, "-c", code, str(slide), str(tmp_path / "out")]
    if os.geteuid() == 0:  # who reads everything, unless told not to
        if shutil.which("setpriv") is None:
            pytest.skip("root reads every file, and there is no setpriv to take that away")
        dropped = "-dac_override,-dac_read_search"
        arguments = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", *arguments]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert said.startswith("failed")
    assert "ermission" in said


def test_too_little_memory_is_explained():
    assert "fewer --workers" in preprocessing.tile.describe_failure(MemoryError())[1]


def test_looking_at_a_finished_slide_takes_milliseconds(tmp_path, svs):
    entry = preprocessing.tile.read_manifest(svs)[0]
    config = TileConfig(slides=svs, out=tmp_path)
    tile_or_skip(entry, config)
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        assert tile_or_skip(entry, config).status == "skipped"
        times.append(time.perf_counter() - begun)
    assert np.median(times) < 0.01
