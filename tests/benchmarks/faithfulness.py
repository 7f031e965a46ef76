"""Faithfulness of the maps of all methods, on cohorts with a planted tumour; writes `faithfulness.md` and `.png`.

python tests/benchmarks/faithfulness.py --case NAME RUN STORES TRUTH GREY [--case ...]

RUN is a folder of `longvit finetune`. TRUTH is a folder of `<slide_id>.png` that cover the slides: a token is tumour if
most of its pixels are GREY or brighter. Each held-out slide is explained by the model of the fold that held it out, for
the predicted class or for the risk. In addition to the maps of `longvit explain` there are three that do not depend on
the model: a hue, a random order, and the distance to the slide's centre (nearest first).
"""

import argparse
import multiprocessing
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import machine
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from longvit.config import ExplainConfig, PixelInput
from longvit.explanation.attribution import squares
from longvit.explanation.explain import explanations
from longvit.explanation.faithfulness import Curves, auroc, blind_orders, curves
from longvit.explanation.methods import METHODS
from longvit.explanation.models import load_models
from longvit.explanation.question import ask
from longvit.explanation.result import Origin
from longvit.tokens.joined import JoinedPieces
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.source import token_source
from preprocessing.store.schema import MASK_CLASSES
from preprocessing.store.store import PatchStore, open_store

HERE = Path(__file__).parent
LIBRARIES = ("numpy", "torch", "scikit-learn")
METHODS_SHOWN = tuple(method for method in METHODS if method != "pooling")


class Case(NamedTuple):
    """A model and a cohort."""

    name: str
    run: Path
    stores: Path
    truth: Path
    grey: int


class Faithfulness(NamedTuple):
    """Faithfulness of one map of one slide."""

    auroc: float
    curves: Curves


def held_out(case: Case, most: int) -> list[tuple[int, str]]:
    """Return fold and slide of up to `most` test slides, evenly spaced over all folds."""
    table = pd.read_csv(case.run / "predictions.csv")
    table = table[(table["split"] == "test") & table["shuffled"].isna()].reset_index(drop=True)
    drawn = table.iloc[np.unique(np.linspace(0, len(table) - 1, most).astype(int))]
    return list(zip(drawn["fold"].tolist(), drawn["slide_id"].tolist(), strict=True))


def share_of(mask: np.ndarray, rc: np.ndarray, tokens: tuple[float, float]) -> np.ndarray:
    """Return the share of each token that a mask of the slide covers.

    `tokens` is the number of tokens along the slide's width and height. Tokens beyond the slide's edge have share 0.
    """
    columns, rows = (round(number) for number in tokens)
    grid = np.zeros(np.maximum(rc.max(axis=0) + 1, (rows, columns)), np.float32)
    grid[:rows, :columns] = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return grid[rc[:, 0], rc[:, 1]]


def blue_over_red(store: PatchStore, rc: np.ndarray, patch_px: int) -> np.ndarray:
    """Return blue minus red of each token, which separates nuclei from fibres."""
    grid = np.zeros(rc.max(axis=0) + 1)
    source = token_source(store, PixelInput(patch_px=patch_px))
    of_tokens = source.read(np.arange(len(store))).reshape(-1, 3, patch_px**2).mean(-1)
    grid[tuple(source.rc.T)] = of_tokens[:, 2] - of_tokens[:, 0]
    return grid[rc[:, 0], rc[:, 1]]


def measure(slide: tuple[int, str], case: Case, side: int, steps: int) -> dict[str, Faithfulness]:
    """Return the faithfulness of a slide's maps: of every method, and of the maps that do not depend on a model."""
    fold, slide_id = slide
    path = case.run / f"fold_{fold}" / "model.safetensors"
    models, store = load_models(path), open_store(case.stores / f"{slide_id}.zarr")
    model = models.first.requires_grad_(False)
    config = ExplainConfig(model=path, stores=store.path, out=Path(), methods=METHODS_SHOWN, device="cpu")
    model.encoder.execution = config.execution
    asked = ask(models, JoinedPieces([SlidePieces(store, model.encoder.config.input)]), None, slide_id)
    (explanation,) = explanations(asked, [store], config, [config.out / slide_id], Origin())
    question = next(asked.of_each_model())
    rc, square_L = explanation.rc, squares(question.rc_L2, side)
    tokens = tuple(size / token for size, token in zip(explanation.size_l0, explanation.side_l0, strict=True))
    planted = cv2.imread(str(case.truth / f"{store.slide_id}.png"), cv2.IMREAD_GRAYSCALE) >= case.grey
    truth = share_of(planted, rc, tokens)
    tissue = share_of(store.overview_mask == MASK_CLASSES["tissue"], rc, tokens) > 0.5
    maps = {one.key: one.scores for one in explanation.maps if one.layer is None}
    maps["hue"] = blue_over_red(store, rc, model.encoder.config.input.patch_px)
    maps |= blind_orders(rc, square_L.numpy(), tokens[::-1])
    return {
        key: Faithfulness(
            auroc(scores[tissue], truth[tissue]),
            curves(question.explained, question.x_LD, square_L, torch.tensor(scores), steps),
        )
        for key, scores in maps.items()
    }


def spread(values: list[float]) -> str:
    """Format mean and standard deviation over slides."""
    return f"{np.nanmean(values):.3f} ± {np.nanstd(values):.3f}"


def rows(case: Case, found: dict[str, list[Faithfulness]]) -> list[str]:
    """Return rows of the table; areas are relative to the output for the whole slide, so that slides are comparable."""
    lines = []
    for key, slides in found.items():
        over = [np.subtract(one.curves.areas, one.curves.deletion[0]) for one in slides]
        deletion, insertion = zip(*over, strict=True)
        cells = [case.name, key, *(spread(list(x)) for x in ([one.auroc for one in slides], deletion, insertion))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(found: dict[str, dict[str, list[Faithfulness]]], path: Path) -> None:
    """Draw the mean curves of every case: deletion above, insertion below."""
    figure, axes = plt.subplots(2, len(found), figsize=(4.2 * len(found), 6.4), squeeze=False, layout="constrained")
    for column, (name, methods) in zip(axes.T, found.items(), strict=True):
        for ax, kind in zip(column, ("deletion", "insertion"), strict=True):
            for key, slides in methods.items():
                dashed = key in ("hue", "random", "centre")
                values = np.mean([getattr(one.curves, kind) - one.curves.deletion[0] for one in slides], axis=0)
                ax.plot(slides[0].curves.share, values, label=key, linestyle="--" if dashed else "-")
            ax.set(title=f"{name}: {kind}", xlabel="share of the squares", ylabel="output minus the whole slide's")
            ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def page(table: list[str], about: list[str], asked: argparse.Namespace) -> str:
    """Return the text of `faithfulness.md`."""
    lines = "\n".join(f"- {line}" for line in about)
    return f"""# Faithfulness of maps

Up to {asked.slides} held-out slides of each cohort, explained by the model of the fold that held them out; mean
± standard deviation over slides. AUROC: probability that a token of the planted tumour has a higher score than
another token of tissue. Glass is left out, since finding tissue is not the question. Deletion and insertion:
area under the output while squares of {asked.side} x {asked.side} tokens are removed or added, highest scores
first, in {asked.steps} steps, minus the output for the whole slide. Low is good in deletion, high in insertion.
Tokens are removed from the sequence, not painted over.

Three maps do not depend on the model: `hue` (blue minus red), `random`, and `centre` (nearest to the slide's centre
first). `hue` shows that the truth is at the right place and can be found by colour.
Written by `tests/benchmarks/faithfulness.py`; the lung cohort's masks by `lung_truth.py`.

{lines}

| cohort, task | method | AUROC | deletion | insertion |
|---|---|---:|---:|---:|
{chr(10).join(table)}

![Mean curves](faithfulness.png)
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=5, action="append", required=True)
    parser.add_argument("--slides", type=int, default=48)
    parser.add_argument("--side", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=HERE / "faithfulness.md")
    a = parser.parse_args()
    found: dict[str, dict[str, list[Faithfulness]]] = {}
    about, spawn = machine.describe(LIBRARIES), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, torch.set_num_threads, (1,)) as pool:
        for name, run, stores, truth, grey in a.case:
            case = Case(name, Path(run), Path(stores), Path(truth), int(grey))
            methods = found.setdefault(name, defaultdict(list))
            for maps in pool.map(partial(measure, case=case, side=a.side, steps=a.steps), held_out(case, a.slides)):
                for key, one in maps.items():
                    methods[key].append(one)
            print("\n".join(rows(case, methods)), flush=True)
    table = [line for name, methods in found.items() for line in rows(Case(name, *[Path()] * 3, 0), methods)]
    draw(found, a.out.with_suffix(".png"))
    a.out.write_text(page(table, about, a), encoding="utf-8")


if __name__ == "__main__":
    main()
