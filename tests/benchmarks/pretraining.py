"""Benefit of self-supervision: the same heads on encoders at random, after MoCo, DINO and masked modelling.

python tests/benchmarks/pretraining.py --cohort lung=DIR --cohort synthetic=DIR --out build/pretraining
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pretraining_page
import torch

from longvit.config import PretrainConfig
from longvit.config.yaml_files import load_yaml
from longvit.model import LongViT, save_encoder

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs" / "lung"
OBJECTIVES = {"moco": "pretrain.yaml", "dino": "pretrain_dino.yaml", "masked": "pretrain_masked.yaml"}
STARTS = ("random", *OBJECTIVES)
HEADS = {
    "probe_subtype": ("finetune_subtype.yaml", "--shuffles 0"),
    "probe_survival": ("finetune_survival.yaml", "--shuffles 0"),
    "finetune_subtype": ("finetune_subtype_full.yaml", ""),
}
"""Name of a run -> its settings file and additional flags."""


@dataclass(frozen=True)
class Start:
    """Encoder to evaluate: its cohort, its objective or `random`, and its seed."""

    cohort: str
    source: Path
    out: Path
    objective: str
    seed: int

    @property
    def folder(self) -> Path:
        """Folder of its runs."""
        return self.out / self.cohort / f"{self.objective}_{self.seed}"

    @property
    def stores(self) -> Path:
        """The cohort's stores, which all starts share."""
        return self.out / self.cohort / "stores"


def main() -> None:
    """Run the command line; finished runs are not repeated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", action="append", required=True, help="NAME=DIR with slides, dataset.csv and splits")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pages", type=Path, default=HERE, help="folder that receives pretraining_NAME.md and .png")
    a = parser.parse_args()
    cohorts = [one.partition("=") for one in a.cohort]
    starts = [
        Start(name, Path(source), a.out, objective, seed)
        for seed, (name, _, source), objective in product(a.seeds, cohorts, STARTS)
    ]
    for name, _, source in cohorts:
        longvit("tile", "tile.yaml", a.out / name / "stores", "--slides", Path(source) / "slides")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in pool.map(judge, starts):
            print("done:", start.folder, file=sys.stderr)
    for name, _, _ in cohorts:
        of_cohort = [start for start in starts if start.cohort == name]
        pretraining_page.write(a.pages / f"pretraining_{name}.md", of_cohort, tuple(HEADS))


def judge(start: Start) -> Start:
    """Pretrain an encoder, or draw its weights, and train every head on it."""
    weights = start.folder / "pretrain" / "encoder.safetensors"
    if start.objective == "random":
        draw_encoder(weights, start.seed)
    else:
        table = start.source / "dataset.csv"
        probed = ("--probe.table", table, "--probe.every", 4, "--patients", table)
        longvit("pretrain", OBJECTIVES[start.objective], weights.parent, *stores_of(start), *probed)
    for name, (settings, more) in HEADS.items():
        longvit("finetune", settings, start.folder / name, *stores_of(start), *labels_of(start, weights), *more.split())
    return start


def stores_of(start: Start) -> Iterator[object]:
    """Yield the flags that pretraining and heads share."""
    yield from ("--stores", start.stores, "--seed", start.seed)


def labels_of(start: Start, weights: Path) -> Iterator[object]:
    """Yield the flags of the heads."""
    yield from ("--table", start.source / "dataset.csv", "--splits", start.source / "splits", "--checkpoint", weights)


def draw_encoder(path: Path, seed: int) -> None:
    """Write the encoder that pretraining starts from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    save_encoder(path, LongViT(load_yaml(CONFIGS / OBJECTIVES["moco"], PretrainConfig).encoder))


def longvit(verb: str, settings: str, out: Path, *flags: object) -> None:
    """Run a verb on one thread, with its output in a file next to its folder.

    Raises:
        RuntimeError: The verb failed; the message contains the end of its output.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "longvit", verb, "--config", CONFIGS / settings, "--out", out, *flags]
    log = out.with_name(f"{out.name}.log")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    with log.open("w") as said:
        words = [str(word) for word in command]
        if subprocess.run(words, stdout=said, stderr=subprocess.STDOUT, env=environment).returncode:
            raise RuntimeError(f"{' '.join(words)} failed:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    main()
