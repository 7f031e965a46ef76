"""Patches of glass as tokens: accuracy, tokens and maps by the least tissue of a patch; writes `glass.md`.

python tests/benchmarks/glass.py WORK TRUTH [--least 0 0.1 0.25 0.5]

WORK has the lung cohort after `longvit tile` and `longvit pretrain` with `configs/lung`. TRUTH is a folder of masks of
their tumours, by `lung_truth.py`. For each value a subtype and a survival model are trained on the frozen encoder with
`configs/lung`, and each held-out slide's contributions are computed by the model of the fold that held it out.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import machine
import numpy as np
import pandas as pd
from faithfulness import share_of

from longvit.config import ExplainConfig
from longvit.explanation.explain import explanations
from longvit.explanation.faithfulness import auroc
from longvit.explanation.models import load_models
from longvit.explanation.question import ask
from longvit.explanation.result import Origin
from longvit.tokens.joined import JoinedPieces
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.source import token_source
from preprocessing.store.patch_tissue import patch_tissue
from preprocessing.store.store import open_store

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs" / "lung"
GLASS = 0.1
"""Largest share of tissue of a patch that counts as glass here."""


class MapOfSlide(NamedTuple):
    """Measures of the map of one slide."""

    tokens: int
    on_glass: float
    """Share of the absolute contributions that lies on glass."""
    top_on_glass: float
    """Share of glass among the twentieth of the tokens with the largest absolute contributions."""
    auroc: float
    """Probability that a token of tumour has a higher contribution than another token of tissue."""


def longvit(*arguments: object) -> None:
    """Run a command of the pipeline."""
    subprocess.run([sys.executable, "-m", "longvit", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def train(task: str, work: Path, least: float) -> Path:
    """Return the folder of a run: it is trained on patches with enough tissue, and evaluated."""
    out = work / f"glass_{task}_{least}"
    longvit("finetune", "--config", CONFIGS / f"finetune_{task}.yaml", "--min-tissue", least, "--out", out)
    longvit("evaluate", out / "predictions.csv", "--out", out / "evaluation")
    return out


def measure(run: Path, stores: Path, truth: Path) -> list[MapOfSlide]:
    """Return the measures of the contributions of every held-out slide."""
    table = pd.read_csv(run / "predictions.csv")
    table = table[(table["split"] == "test") & table["shuffled"].isna()]
    found = []
    for fold, slide_id in zip(table["fold"], table["slide_id"], strict=True):
        path = run / f"fold_{fold}" / "model.safetensors"
        models, store = load_models(path), open_store(stores / f"{slide_id}.zarr")
        models.first.requires_grad_(False)
        config = ExplainConfig(model=path, stores=store.path, out=Path(), methods=("contribution",), device="cpu")
        pieces = JoinedPieces([SlidePieces(store, models.first.required_encoder.config.input)])
        question = ask(models, pieces, None, slide_id)
        (explanation,) = explanations(question, [store], config, [config.out / slide_id], Origin())
        scores, rc = explanation.maps[0].scores, explanation.rc
        source = token_source(store, models.first.required_encoder.config.input)
        of_place = dict(zip(map(tuple, source.rc), patch_tissue(store, source.per_side)[source.kept], strict=True))
        tissue = np.array([of_place[tuple(place)] for place in rc])
        tokens = tuple(size / token for size, token in zip(explanation.size_l0, explanation.side_l0, strict=True))
        tumour = share_of(cv2.imread(str(truth / f"{slide_id}.png"), cv2.IMREAD_GRAYSCALE) >= 128, rc, tokens)
        size, glass, inside = np.abs(scores), tissue < GLASS, tissue > 0.5
        top = np.argsort(-size)[: max(1, len(size) // 20)]
        planted = auroc(scores[inside], tumour[inside])
        found.append(MapOfSlide(len(rc), size[glass].sum() / size.sum(), glass[top].mean(), planted))
    return found


def row(least: float, subtype: Path, survival: Path, maps: list[MapOfSlide]) -> str:
    """Return a row of the table."""
    scores = [json.loads((run / "evaluation" / "metrics.json").read_text()) for run in (subtype, survival)]
    cells = [f"{least:g}"]
    for one in scores:
        pooled = one["pooled"][one["headline"]]
        cells.append(f"{pooled['value']:.3f} ({pooled['low']:.3f} to {pooled['high']:.3f})")
    means = np.nanmean(np.array(maps), axis=0)
    return f"| {' | '.join([*cells, f'{means[0]:.0f}', *(f'{value:.3f}' for value in means[1:])])} |"


def page(rows: list[str], about: list[str]) -> str:
    """Return the text of `glass.md`."""
    lines = "\n".join(f"- {line}" for line in about)
    return f"""# Patches of glass

A tile at the edge of the tissue is partly glass, and its patches of glass are tokens like all others, as in the paper.
`min_tissue` leaves out patches with less tissue, by the overview's mask. The lung cohort, one encoder pretrained on all
patches; heads on the frozen encoder; test patients of five folds, pooled, with 95 % intervals over patients. Tokens and
maps are means over the held-out slides, of the contributions to the predicted subtype. Glass has less than
{GLASS * 100:.0f} % tissue. Top: the twentieth of the tokens with the largest absolute contributions. AUROC: of
contributions for the planted tumour, among tokens with more than half tissue.

Accuracy is the same within the intervals, so the default stays 0, the paper's way. A fifth of the tokens is saved, and
no map has colour on glass.

Written by `tests/benchmarks/glass.py`.

{lines}

| least tissue | subtype, AUROC | survival, c-index | tokens | contributions on glass | glass in top | tumour, AUROC |
|---:|---|---|---:|---:|---:|---:|
{chr(10).join(rows)}
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--least", type=float, nargs="+", default=[0.0, 0.1, 0.25, 0.5])
    parser.add_argument("--out", type=Path, default=HERE / "glass.md")
    a = parser.parse_args()
    about, rows = machine.describe(("numpy", "torch")), []
    truth, out = a.truth.resolve(), a.out.resolve()
    os.chdir(a.work)
    for least in a.least:
        subtype, survival = (train(task, Path("lung"), least) for task in ("subtype", "survival"))
        rows.append(row(least, subtype, survival, measure(subtype, Path("lung/stores"), truth)))
        print(rows[-1], flush=True)
        out.write_text(page(rows, about), encoding="utf-8")


if __name__ == "__main__":
    main()
