"""The whole line on a small cohort, run once through the command line, and what looks at folders before and after."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from longvit.cli import run_command
from preprocessing.synthetic import Cohort, make_cohort

ENCODER = {"width": 32, "depth": 2, "heads": 4, "segment-lengths": "64 256", "dilation-ratios": "1 2"}
OBJECTIVE = {"kind": "dino", "prototypes": 64, "hidden": 32, "bottleneck": 16}
VIEWS = {"region-px": 256, "global-px": 128, "local-px": 64, "local-views": 2}
HERE = ["--loader-workers", "0", "--device", "cpu"]


def flags(prefix: str, values: dict[str, object]) -> list[str]:
    """`--<prefix>.<name> value...` of every setting."""
    return [word for name, value in values.items() for word in (f"--{prefix}.{name}", *str(value).split())]


@dataclass(frozen=True)
class Line:
    """Where everything of one run of the line lies, and the command of every verb of it."""

    root: Path
    cohort: Cohort
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
