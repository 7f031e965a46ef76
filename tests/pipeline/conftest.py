"""The whole line on a small cohort, run once through the command line, and what looks at folders before and after."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from longvit.cli.app import run_command
from longvit.config import EncoderConfig
from longvit.model import LongViT, save_encoder
from preprocessing.synthetic.cohort import CohortPaths, make_cohort

ENCODER = {"width": 32, "depth": 2, "heads": 4, "segment-lengths": "64 256", "dilation-ratios": "1 2"}
OBJECTIVE = {"kind": "dino", "prototypes": 64, "hidden": 32, "bottleneck": 16}
VIEWS = {"region-px": 256, "global-px": 128, "local-px": 64, "local-views": 2}
HERE = ["--loader-workers", "0", "--device", "cpu"]
PRETRAIN = """
    --encoder.width 16 --encoder.depth 1 --encoder.heads 2 --encoder.segment-lengths 16 --encoder.dilation-ratios 1
    --encoder.input.kind pixels --encoder.input.patch-px 16 --objective.kind moco --objective.mlp-dim 16
    --objective.dim 8 --batch-size 7 --regions-per-slide 1 --optimiser.epochs 2
    --views.region-px 64 --views.global-px 32 --views.local-px 32 --loader-workers 0 --device cpu
"""
"""Settings that pretrain on the tiny cohort in a second."""


def flags(prefix: str, values: dict[str, object]) -> list[str]:
    """`--<prefix>.<name> value...` of every setting."""
    return [word for name, value in values.items() for word in (f"--{prefix}.{name}", *str(value).split())]


@dataclass(frozen=True)
class Line:
    """Where everything of one run of the line lies, and the command of every verb of it."""

    root: Path
    cohort: CohortPaths
    commands: dict[str, list[str]]

    @property
    def stores(self) -> Path:
        return self.root / "stores"

    @property
    def encoder(self) -> Path:
        return self.root / "pretrain" / "encoder.safetensors"

    def model(self, task: str) -> Path:
        return self.root / task / "fold_0" / "model.safetensors"

    def finetune(self, out: Path, *more: str, **changes: Path) -> list[str]:
        """A command line of `finetune` on this cohort, with other tables or splits where they are given."""
        paths = {"stores": self.stores, "table": self.cohort.dataset, "splits": self.cohort.splits} | changes
        given = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
        return ["finetune", "--out", str(out), *given, *HERE, *more]


@pytest.fixture(scope="session")
def line(tmp_path_factory) -> Line:
    """15 patients in three folds, one epoch of everything; read only."""
    root = tmp_path_factory.mktemp("line")
    cohort = make_cohort(root / "cohort", patients=15, folds=3, side_l0=1024)
    run = Line(root, cohort, {})
    small = flags("encoder", ENCODER) + flags("objective", OBJECTIVE) + flags("views", VIEWS)
    epoch = ["--optimiser.epochs", "1", "--batch-size", "8", "--regions-per-slide", "1"]
    frozen = ["--trained-blocks", "0", "--shuffles", "1", "--optimiser.epochs", "2"]
    checkpoint = ["--checkpoint", str(run.encoder)]
    store = run.stores / f"{sorted(path.stem for path in cohort.slides.iterdir())[0]}.zarr"
    explain = ["explain", "--store", str(store), "--out", str(root / "explain"), "--device", "cpu", "--model"]
    run.commands.update(
        {
            "tile": f"tile --slides {cohort.slides} --out {run.stores} --tile-px 128 --workers 1".split(),
            "pretrain": [*f"pretrain --stores {run.stores} --out {run.encoder.parent}".split(), *epoch, *small, *HERE],
            "finetune subtype": run.finetune(root / "subtype", *checkpoint, *frozen),
            "finetune survival": run.finetune(
                root / "survival", *checkpoint, "--task.kind", "cox", "--optimiser.epochs", "1"
            ),
            "evaluate subtype": ["evaluate", str(root / "subtype" / "predictions.csv")],
            "evaluate survival": ["evaluate", "--predictions", str(root / "survival" / "predictions.csv")],
            "explain": [*explain, str(run.model("subtype"))],
        }
    )
    for name, command in run.commands.items():
        assert run_command(command) == 0, name
    return run


@dataclass(frozen=True)
class Lab:
    """A copy of the tiny cohort that a test may change, an encoder, and the command of every verb."""

    root: Path
    encoder: Path

    @property
    def stores(self) -> Path:
        return self.root / "stores"

    @property
    def table(self) -> Path:
        return self.root / "table.csv"

    @property
    def splits(self) -> Path:
        return self.root / "splits"

    def command(self, verb: str, out: Path | None = None) -> list[str]:
        """The command line of a verb; its folder is named like the verb unless `out` is given."""
        stores, cohort = f"--stores {self.stores}", f"--table {self.table} --splits {self.splits}"
        frozen = f"--checkpoint {self.encoder} --trained-blocks 0 --optimiser.epochs 1"
        run, new = self.root / "finetune", self.root / "new"
        settings = {
            "tile": f"--slides {self.root / 'slides'} --tile-px 64 --workers 1",
            "pretrain": f"{stores} {PRETRAIN}",
            "split": f"--table {self.table} --folds 3",
            "audit": cohort,
            "finetune": f"{stores} {cohort} {frozen} --loader-workers 0",
            "predict": f"--run {run} --stores {new} --accept seen",
            "encode": f"{stores} --checkpoint {self.encoder}",
            "evaluate": f"--predictions {run / 'predictions.csv'}",
            "explain": f"--model {run / 'fold_0' / 'model.safetensors'} --store {new} --methods contribution",
            "view": f"--source {self.stores} --no-browser --max-px 256",
            "demo": "--patients 10",
        }
        place = "--static" if verb == "view" else "--out"
        return [verb, *settings[verb].split(), place, str(out or self.root / verb)]

    def run(self, verb: str, *more: str, out: Path | None = None) -> int:
        return run_command([*self.command(verb, out), *more])

    def swap_labels(self) -> None:
        table = pd.read_csv(self.table)
        table["oncotree_code"] = table["oncotree_code"].map({"LUAD": "LUSC", "LUSC": "LUAD"})
        table.to_csv(self.table, index=False)

    def change_store(self, slide: str, folder: str = "stores") -> None:
        """Let the store be one of another scan of the slide."""
        document = self.root / folder / f"{slide}.zarr" / "zarr.json"
        document.write_text(document.read_text().replace(f'"sha256": "{slide}"', '"sha256": "another"'))


@pytest.fixture
def lab(cohort, tiny_encoder: EncoderConfig, save_slide, tmp_path) -> Lab:
    """The tiny cohort; `new` has two slides that the models of its splits are not tested on; `slides` has one."""
    shutil.copytree(cohort.stores, tmp_path / "stores")
    shutil.copytree(cohort.splits, tmp_path / "splits")
    shutil.copy(cohort.table, tmp_path / "table.csv")
    for slide in ("P08-0", "P09-0"):
        shutil.copytree(cohort.stores / f"{slide}.zarr", tmp_path / "new" / f"{slide}.zarr")
    save_slide(tmp_path / "slides" / "S1.svs")
    save_encoder(tmp_path / "encoder.safetensors", LongViT(tiny_encoder))
    return Lab(tmp_path, tmp_path / "encoder.safetensors")


@pytest.fixture
def trained(lab) -> Lab:
    """The same after `finetune`."""
    assert lab.run("finetune") == 0
    return lab


@pytest.fixture(scope="session")
def listing() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """A function: everything below a folder, by relative path, with the time of its last change and what it holds."""

    def list_below(folder: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in sorted(folder.rglob("*"))
        }

    return list_below


@pytest.fixture(scope="session")
def save_slide() -> Callable[..., Path]:
    """(path, mpp=0.5) -> a slide of 1024 x 1024 pixels with tissue in its middle; without mpp it states none."""
    rng = np.random.default_rng(0)
    image = np.full((1024, 1024, 3), 243, np.uint8)
    nuclei = rng.random((512, 512, 1)) > 0.7
    image[256:768, 256:768] = np.where(nuclei, (110, 60, 140), (222, 150, 190)) + rng.integers(-9, 9, (512, 512, 1))

    def save(path: Path, mpp: float | None = 0.5) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        about = "Aperio Image Library\n1024x1024 [0,0 1024x1024] (240x240) JPEG/RGB Q=95|AppMag = 20"
        about += "" if mpp is None else f"|MPP = {mpp}"
        tifffile.imwrite(
            path, image, tile=(240, 240), photometric="rgb", compression="jpeg", description=about, metadata=None
        )
        return path

    return save
