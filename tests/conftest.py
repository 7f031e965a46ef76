"""What all tests share: one thread, no deadlines, and a cohort of stores small enough to train on in a second."""

import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from hypothesis import settings

from longvit.config import EncoderConfig, ExecutionConfig, FinetuneConfig, FinetuneOptimiserConfig, PixelInput
from longvit.model.attention.plan import AttentionPlan
from longvit.model.rank_group import RankGroup
from preprocessing.frames import l0_from_rc
from preprocessing.jpeg.codec import Jpeg
from preprocessing.store.schema import Source, StoreAttributes
from preprocessing.store.store import PatchStore, open_store
from preprocessing.store.writer import finish_store, write_arrays

settings.register_profile("longvit", deadline=None)  # a busy machine is no failure
settings.load_profile("longvit")

TILE = 64
GRID = (4, 5)
TABLE = """\
case_id,slide_id,oncotree_code,survival_months,censorship
A,A-1.svs,LUAD,10.5,0
A,A-2.svs,LUAD,10.5,0
B,B-1.svs,LUSC,3,1
C,C-1,LUAD,7,0
"""
SUBTYPING = """\
patient_id,slide_id,fold,split,label,p_LUAD,p_LUSC,shuffled
A,A-1,0,test,LUAD,0.9,0.1,
B,B-1,0,test,LUAD,0.6,0.4,
C,C-1,0,test,LUSC,0.75,0.25,
C,C-2,0,test,LUSC,0.55,0.45,
D,D-1,0,test,LUSC,0.2,0.8,
E,E-1,1,test,LUAD,0.7,0.3,
F,F-1,1,test,LUSC,0.1,0.9,
A,A-1,0,test,LUAD,0.1,0.9,0
B,B-1,0,test,LUAD,0.6,0.4,0
C,C-1,0,test,LUSC,0.75,0.25,0
C,C-2,0,test,LUSC,0.75,0.25,0
D,D-1,0,test,LUSC,0.5,0.5,0
E,E-1,1,test,LUAD,0.7,0.3,0
F,F-1,1,test,LUSC,0.9,0.1,0
"""
"""Fold 0: LUSC scores C 0.35, D 0.8 against A 0.1, B 0.4, so 3 of 4 pairs. Fold 1: 1 of 1. Shuffled: 1 of 4; 0 of 1."""

SURVIVAL = """\
patient_id,slide_id,fold,split,time,event,risk,shuffled
A,A-1,0,test,2,1,0.9,
B,B-1,0,test,5,1,0.1,
C,C-1,0,test,7,0,0.4,
D,D-1,0,test,9,1,0.2,
E,E-1,1,test,1,1,-5,
F,F-1,1,test,3,0,-6,
G,G-1,1,test,8,1,-7,
"""
"""Fold 0: pairs AB AC AD agree, BC BD do not: 3 of 5. Fold 1: EF EG agree: 2 of 2. Pooled within folds: 5 of 7."""
DYES = {"LUAD": (222, 150, 190), "LUSC": (150, 110, 200)}


@dataclass(frozen=True)
class TinyCohort:
    """12 patients, two of them with two slides, in two folds."""

    stores: Path
    table: Path
    splits: Path
    slides: dict[str, list[str]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


RANKS = (1, 2, 3, 4, 8)
"""Numbers of ranks that a test can ask for."""
RANKS_TIMEOUT = timedelta(seconds=60)


class Ranks:
    """Eight forked processes; a call runs a function on the first of them, each with a group of all that take part."""

    def __init__(self) -> None:
        self.processes: list[tuple[multiprocessing.Process, Connection]] = []

    def __call__(self, count: int, function: Callable[..., Any], *args: object) -> list[Any]:
        """Return what `function(group, *args)` returns on each rank.

        Raises:
            AssertionError: A rank raised; all processes are ended, and the next call starts new ones.
        """
        if not self.processes:
            self._start()
        some = self.processes[:count]
        for _, pipe in some:
            pipe.send_bytes(pickle.dumps((count, function, args)))
        answers = [pickle.loads(pipe.recv_bytes()) for _, pipe in some]
        failed = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(answers) if text]
        if failed:
            self.stop()
            raise AssertionError("\n".join(failed))
        return [result for result, _ in answers]

    def stop(self) -> None:
        """End all processes."""
        for process, pipe in self.processes:
            process.kill()
            process.join()
            pipe.close()
        self.processes = []

    def _start(self) -> None:
        context, folder = multiprocessing.get_context("fork"), Path(tempfile.mkdtemp(prefix="ranks"))
        for rank in range(max(RANKS)):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, folder / "store", there), daemon=True)
            process.start()
            there.close()
            self.processes.append((process, here))
        for _, pipe in self.processes:
            pipe.recv_bytes()
        shutil.rmtree(folder)


def _serve(rank: int, store: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(store), max(RANKS)), rank=rank, world_size=max(RANKS), timeout=RANKS_TIMEOUT
    )
    groups = {count: dist.new_group(range(count), timeout=RANKS_TIMEOUT) for count in RANKS}
    pipe.send_bytes(b"")
    while True:
        try:
            count, function, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = function(RankGroup(groups[count]), *args), ""
        except BaseException:
            answer = None, traceback.format_exc()
        pipe.send_bytes(pickle.dumps(answer))


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Processes that compute together; they are forked after all tests are imported, whose functions they run."""
    started = Ranks()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def launched() -> Callable[..., list[Any]]:
    """(count, function, *args) -> what each of `count` processes returns, started as torchrun starts them."""

    def launch(count: int, function: Callable[..., Any], *args: object) -> list[Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context, started = multiprocessing.get_context("fork"), []
        for rank in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_launch, args=(rank, count, port, there, function, args), daemon=False)
            process.start()
            there.close()
            started.append((process, here))
        answers = []
        for process, pipe in started:
            try:
                answers.append(pickle.loads(pipe.recv_bytes()))
            except EOFError:
                answers.append((None, "was killed"))
            process.join()
        failed = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(answers) if text]
        if failed:
            raise AssertionError("\n".join(failed))
        return [result for result, _ in answers]

    return launch


def _launch(rank: int, count: int, port: int, pipe: Connection, function: Callable[..., Any], args: tuple) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    try:
        answer = function(*args), ""
    except BaseException:
        answer = None, traceback.format_exc()
    pipe.send_bytes(pickle.dumps(answer))
    pipe.close()


@pytest.fixture
def executions(monkeypatch) -> list[ExecutionConfig]:
    """The execution of each forward pass of an encoder from now on."""
    seen, of = [], AttentionPlan.of

    def remembered(config, lengths, execution=None, **more) -> AttentionPlan:
        seen.append(execution)
        return of(config, lengths, execution, **more)

    monkeypatch.setattr(AttentionPlan, "of", remembered)
    return seen


@pytest.fixture(scope="session", autouse=True)
def _interruptible():
    """A shell has what it starts in the background ignore SIGINT, and so would every process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A file system of its own of 1 MiB, and a function that mounts it again with other options."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine does not let us mount: {mounted.stderr.decode().strip()}")
    yield folder, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def write_xlsx() -> Callable[..., Path]:
    """(path, XML of the cells of each row, XML of shared strings) -> an Excel file; `{r}` is the number of the row."""
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    workbook = (
        f'<workbook {main} xmlns:r="{office}"><sheets><sheet name="a" sheetId="1" r:id="rId1"/></sheets></workbook>'
    )
    relations = '<Relationships><Relationship Id="rId1" Target="worksheets/sheet1.xml"/></Relationships>'

    def write(path: Path, rows: list[str], strings: str = "", before: str = "") -> Path:
        numbered = enumerate(rows, 1)
        cells = "".join(f"<row>{of}</row>".replace("{r}", str(r)) for r, of in numbered)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/workbook.xml", workbook)
            archive.writestr("xl/_rels/workbook.xml.rels", relations)
            archive.writestr("xl/sharedStrings.xml", f"<sst {main}>{strings}</sst>")
            archive.writestr(
                "xl/worksheets/sheet1.xml", f"{before}<worksheet {main}><sheetData>{cells}</sheetData></worksheet>"
            )
        return path

    return write


def textured(side: int, dye: tuple[int, int, int], seed: int) -> np.ndarray:
    """A square of tissue with detail down to the pixel, RGB uint8."""
    rng = np.random.default_rng(seed)
    nuclei = cv2.GaussianBlur(rng.random((side, side)).astype(np.float32), (0, 0), 2)
    nuclei = (nuclei - nuclei.mean()) / nuclei.std()
    image = np.where(nuclei[..., None] > 0.7, (110, 60, 140), dye).astype(np.float32)
    return (image + rng.normal(0, 6, (side, side, 1))).clip(0, 255).astype(np.uint8)


def write_tiny_store(folder: Path, slide_id: str, rc: np.ndarray, tiles: np.ndarray, **changes) -> Path:
    """A store of tiles at the given places of the grid; `tissue`, `overview_mask`, attributes may be changed."""
    tile_st, side_l0 = tiles.shape[1], 2.0 * tiles.shape[1]
    grid_shape = tuple(changes.pop("grid_shape", GRID))
    arrays = {"rc": rc.astype(np.int32), "xy_l0": l0_from_rc(rc, side_l0)}
    arrays["tissue"] = np.asarray(changes.pop("tissue", np.ones(len(rc))), np.float32)
    mask = changes.pop("overview_mask", np.ones((grid_shape[0] * 8, grid_shape[1] * 8), np.uint8))
    arrays |= {"overview": np.full((*mask.shape, 3), 240, np.uint8), "overview_mask": mask}
    source = Source(name=f"{slide_id}.svs", size=1, sha256=slide_id)
    known = {"slide_id": slide_id, "source": source, "vendor": "aperio"}
    mpp = changes.pop("mpp", 0.5)
    known |= {"mpp": mpp, "mpp_source": "metadata", "mpp_level0": mpp / 2, "tile_st": tile_st}
    known |= {"side_l0": (side_l0, side_l0)}
    known |= {"size_l0": (int(grid_shape[1] * side_l0), int(grid_shape[0] * side_l0)), "grid_shape": grid_shape}
    known |= {"config": {}, "versions": {}}
    jpeg, path = Jpeg(level=90, subsampling="444"), folder / f"{slide_id}.zarr"
    jpegs = ((i, (jpeg.encode_image(tile),)) for i, tile in enumerate(tiles))
    write_arrays(path, jpegs, arrays, tile_st, jpeg=jpeg, shard_tiles=4)
    finish_store(path, StoreAttributes(**known | changes))
    return path


@pytest.fixture
def save_store(tmp_path) -> Callable[..., PatchStore]:
    """(slide_id, rc, tiles=None, **changes) -> the store in tmp_path, with random tiles where none are given."""

    def save(slide_id: str, rc: list[list[int]], tiles: np.ndarray | None = None, **changes) -> PatchStore:
        if tiles is None:
            tiles = np.stack([textured(TILE, DYES["LUAD"], seed) for seed in range(len(rc))])
        return open_store(write_tiny_store(tmp_path, slide_id, np.array(rc), tiles, **changes))

    return save


def copy_as(store: Path, target: Path) -> Path:
    """Copy a store to be the one of another slide, which is made from the same file."""
    shutil.copytree(store, target)
    document = target / "zarr.json"
    document.write_text(document.read_text().replace(f'"slide_id": "{store.stem}"', f'"slide_id": "{target.stem}"'))
    return target


@pytest.fixture(scope="session")
def copy_store() -> Callable[[Path, Path], Path]:
    """(store, target) -> the target, a copy under the name of another slide."""
    return copy_as


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> TinyCohort:
    """Patients `P00` to `P11`, classes in turn, two thirds with an observed event; read only."""
    root = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    slides, rows = {}, []
    for i in range(12):
        case, label = f"P{i:02d}", ("LUAD", "LUSC")[i % 2]
        slides[case] = [f"{case}-{k}" for k in range(2 if i in (2, 7) else 1)]
        target = {"oncotree_code": label, "survival_months": 3.5 * (1 + i // 2), "censorship": int(i % 3 == 0)}
        rows += [{"case_id": case, "slide_id": f"{slide}.svs"} | target for slide in slides[case]]
        for slide in slides[case]:
            places = rng.permutation(GRID[0] * GRID[1])[: rng.integers(4, 7)]
            rc = np.stack(np.divmod(np.sort(places), GRID[1]), axis=1)
            tiles = np.stack([textured(TILE, DYES[label], int(rng.integers(1 << 30))) for _ in rc])
            write_tiny_store(root / "stores", slide, rc, tiles)
    pd.DataFrame(rows).to_csv(root / "dataset.csv", index=False)
    (root / "splits").mkdir()
    cases = list(slides)
    for k, test in enumerate((cases[:4], cases[4:8])):
        rest = [case for case in cases if case not in test]
        columns = {"train": rest[2:], "val": rest[:2], "test": test}
        table = pd.DataFrame(
            {part: pd.Series([s for c in names for s in slides[c]]) for part, names in columns.items()}
        )
        table.to_csv(root / "splits" / f"splits_{k}.csv")
    return TinyCohort(root / "stores", root / "dataset.csv", root / "splits", slides)


@pytest.fixture(scope="session")
def tiny_encoder() -> EncoderConfig:
    """An encoder of a few thousand weights, with every random layer switched on."""
    return EncoderConfig(
        input=PixelInput(patch_px=16),
        width=16,
        depth=2,
        heads=2,
        segment_lengths=(16, 64),
        dilation_ratios=(1, 2),
        dropout=0.1,
        drop_path=0.2,
    )


@pytest.fixture(scope="session")
def tcga() -> Path:
    """The published TCGA tables and splits, outside of the repository."""
    folder = Path(__file__).parents[1] / ".." / "shared" / "data" / "tcga"
    if not folder.is_dir():
        pytest.skip("the published TCGA tables are not beside this checkout (../shared/data/tcga)")
    return folder


@pytest.fixture
def table(tmp_path) -> Callable[..., Path]:
    """Write the small table, after a change to its rows of strings."""

    def write(change: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows, name: str = "table.csv") -> Path:
        rows = pd.DataFrame(
            [line.split(",") for line in TABLE.splitlines()[1:]], columns=TABLE.split("\n")[0].split(",")
        )
        change(rows).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


@pytest.fixture
def config(cohort, tiny_encoder, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(
        stores=cohort.stores,
        table=cohort.table,
        splits=cohort.splits,
        out=tmp_path / "run",
        encoder=tiny_encoder,
        window=4,
        optimiser=FinetuneOptimiserConfig(epochs=2, learning_rate=1e-2, warmup_epochs=1),
        loader_workers=0,
        device="cpu",
    )


@pytest.fixture
def subtyping_csv(tmp_path: Path) -> Path:
    path = tmp_path / "subtyping.csv"
    path.write_text(SUBTYPING)
    return path


@pytest.fixture
def survival_csv(tmp_path: Path) -> Path:
    path = tmp_path / "survival.csv"
    path.write_text(SURVIVAL)
    return path


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Path, Callable[[pd.DataFrame], pd.DataFrame]], Path]:
    """A copy of a CSV after a change to its table of strings."""

    def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
        table = change(pd.read_csv(path, dtype=str, keep_default_na=False))
        copy = tmp_path / "edited.csv"
        table.to_csv(copy, index=False)
        return copy

    return edit
