"""Tiling and reading, ours against its fastest peers, alternating in one run; writes the table `tiling.md`.

    python tests/benchmarks/tiling.py --slide20 slide20.svs --slide20-240 slide20_240.svs --dicom slide20_240_dicom \\
        --slide40 slide40.svs --huge huge.svs --peer .venv-hs2p/bin/python

README.md in this folder describes what is measured and how. `make bench-tiling` makes all inputs first.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import machine
from measure import run_measured

HERE = Path(__file__).parent
WORKERS = ["--workers", "2"]
OPENSLIDE = {"loader": "OpenSlide loader", "openslide": "OpenSlide"}
"""OpenSlide's modes in `read_tiles.py` -> their names in the table."""
Command = Sequence[str | Path]


@dataclass(frozen=True)
class Case:
    """Comparison: the same work by us and by a peer."""

    name: str
    peer: str
    target: float | None
    """Target of our tiles per second over the peer's: at least this. None if there is no target."""
    ours: Command
    theirs: Command


@dataclass(frozen=True)
class Side:
    """The repetitions of one side of a case."""

    runs: list[dict[str, Any]]

    @property
    def rates(self) -> list[float]:
        """Tiles per second of each repetition."""
        return [run["tiles"] / run["seconds"] for run in self.runs]

    @property
    def rate(self) -> str:
        """Median rate, with the slowest and the fastest, as text."""
        return f"{median(self.rates):,.0f} ({min(self.rates):,.0f} to {max(self.rates):,.0f})"

    @property
    def peak(self) -> str:
        """Median peak memory, MB."""
        return f"{median(run['peak_mb'] for run in self.runs):,.0f}"


def tiling_cases(a: argparse.Namespace, cohort: Path, scratch: Path) -> Iterator[Case]:
    """Yield the cases of tiling a slide into tiles of 256 pixels at 0.5 micrometres per pixel, with two workers."""
    store, tar = scratch / "ours", scratch / "hs2p"

    def case(name: str, target: float | None, slide: Path, *options: str, backend: str = "cucim") -> Case:
        ours = [sys.executable, HERE / "tile_ours.py", slide, store, *WORKERS, *options]
        theirs = [a.peer, HERE / "tile_hs2p.py", slide, tar, *WORKERS, "--backend", backend]
        return Case(name, "hs2p", target, ours, theirs)

    yield case("20x slide, its own JPEG bytes kept", 12, a.slide20)
    yield case("16 such slides in a run, bytes kept", None, cohort)
    yield case("20x slide in tiles of 240, re-tiled", 2.2, a.slide20_240)
    yield case("the same as DICOM, re-tiled", None, a.dicom / "level-0.dcm", backend="openslide")
    yield case("20x slide, decoded and encoded again", 2.2, a.slide20, "--reencode")
    yield case("the same with 4:4:4, unlike the slide", None, a.slide20, "--reencode", "--subsampling", "444")
    yield case("40x slide to 20x", 3.5, a.slide40)


def reading_cases(slide: Path, store: Path, what: str) -> Iterator[Case]:
    """Yield the cases of reading random tiles: of a store by us, the same places of its slide by OpenSlide."""

    def case(how: str, target: float | None, source: str, peer: str, workers: str) -> Case:
        ours, theirs = (
            [sys.executable, HERE / "read_tiles.py", one, store, slide, "--workers", workers] for one in (source, peer)
        )
        return Case(f"random tiles, {what}, {how}", OPENSLIDE[peer], target, ours, theirs)

    yield case("one worker", 6, "store", "loader", "1")
    yield case("two workers", 6, "store", "loader", "2")
    yield case("pixels only", None, "store", "openslide", "1")
    yield case("decoder only", None, "decoder", "openslide", "1")


def compare(case: Case, repeat: int, scratch: Path) -> tuple[Side, Side]:
    """Run both sides in turn, `repeat` times each, with nothing left to write from the run before."""
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
    for _ in range(repeat):
        for runs, command in zip(sides, (case.ours, case.theirs), strict=True):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            os.sync()
            runs.append(run_measured(command))
            print(f"{case.name}: {runs[-1]}", file=sys.stderr)
    return Side(sides[0]), Side(sides[1])


def as_row(case: Case, ours: Side, theirs: Side) -> str:
    """Return a row of the table."""
    ratio = median(ours.rates) / median(theirs.rates)
    verdict = "" if case.target is None or ratio >= case.target else " **(missed)**"
    cells = [case.name, case.peer, str(ours.runs[0]["tiles"]), str(theirs.runs[0]["tiles"]), ours.rate, theirs.rate]
    wanted = "" if case.target is None else f"{case.target:g}"
    cells += [f"{ratio:.1f}{verdict}", wanted, ours.peak, theirs.peak]
    return f"| {' | '.join(cells)} |"


def memory_rows(huge: Path, scratch: Path) -> Iterator[str]:
    """Yield a row for a huge slide whose tiles are decoded and reduced, and a row for kept bytes; ours only."""
    for mpp in ("0.5", "0.25"):
        run = run_measured([sys.executable, HERE / "tile_ours.py", huge, scratch, *WORKERS, "--mpp", mpp])
        shutil.rmtree(scratch)
        how = "kept" if run["passthrough"] else "decoded, encoded again"
        yield f"| {mpp} | {how} | {run['tiles']:,} | {run['seconds']:.0f} | {run['peak_mb']:.0f} | 500 |"


def read_through(*slides: Path) -> None:
    """Bring the slides into the page cache, so that no side pays for the disk."""
    for slide in slides:
        with slide.open("rb") as file:
            while file.read(1 << 24):
                pass


HEADER = """\
| case | peer | tiles, ours | tiles, peer | tiles/s, ours | tiles/s, peer | ratio | wanted | MB, ours | MB, peer |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"""
MEMORY_HEADER = """\
| um/px of the store | the slide's JPEG bytes | tiles | seconds | MB | bound |
|---|---|---:|---:|---:|---:|"""


def page(rows: Sequence[str], memory: Sequence[str], about: Sequence[str], repeat: int) -> str:
    """Return the text of `tiling.md`."""
    lines = "\n".join(f"- {line}" for line in about)
    return f"""# Tiling, measured

Medians of {repeat} runs, slowest and fastest in brackets; memory is the peak of the whole process tree.
Written by `tests/benchmarks/tiling.py`; `README.md` in this folder describes each row.

{lines}

{HEADER}
{chr(10).join(rows)}

A slide of 100,000 x 100,000 pixels at 0.25 um per pixel, one run each:

{MEMORY_HEADER}
{chr(10).join(memory)}
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide20", type=Path, required=True, help="a slide of 0.5 micrometres per pixel")
    parser.add_argument("--slide20-240", type=Path, required=True, help="a slide in tiles of 240 pixels")
    parser.add_argument("--dicom", type=Path, required=True, help="folder made by dicom_slide.py from it")
    parser.add_argument("--slide40", type=Path, required=True, help="a slide of 0.25 micrometres per pixel")
    parser.add_argument("--huge", type=Path, required=True, help="a slide made by huge_slide.py")
    parser.add_argument("--peer", type=Path, required=True, help="the Python of hs2p's environment")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "tiling.md")
    a = parser.parse_args()
    about = machine.describe(peer=a.peer)
    read_through(a.slide20, a.slide20_240, *a.dicom.iterdir(), a.slide40)
    with tempfile.TemporaryDirectory() as folder:
        scratch, cohort = Path(folder) / "scratch", Path(folder) / "cohort"
        cohort.mkdir()
        for number in range(16):
            (cohort / f"slide{number:02d}.svs").symlink_to(a.slide20.resolve())
        rows = [as_row(case, *compare(case, a.repeat, scratch)) for case in tiling_cases(a, cohort, scratch)]
        for what, slide, options in (
            ("bytes kept", a.slide20, []),
            ("re-tiled from tiles of 240", a.slide20_240, []),
            ("encoded again", a.slide20, ["--reencode"]),
            ("40x slide to 20x", a.slide40, []),
        ):
            stores = Path(folder) / what
            run_measured([sys.executable, HERE / "tile_ours.py", slide, stores, *options])
            cases = reading_cases(slide, stores / f"{slide.stem}.zarr", what)
            rows += [as_row(case, *compare(case, a.repeat, scratch)) for case in cases]
        memory = list(memory_rows(a.huge, scratch))
    a.out.write_text(page(rows, memory, about, a.repeat), encoding="utf-8")
    print(a.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
