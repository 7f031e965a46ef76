"""Robustness to another stain: train on one, test on others, with each setting; writes `stain.md`.

python tests/benchmarks/stain.py WORK [--epochs 8]

WORK has the lung cohort after `longvit tile` with `configs/lung`. Its slides are stained again and scanned by other
scanners. For each setting an encoder is pretrained and heads are trained with `configs/lung` on the first stain. The
models predict the test patients of their folds in all stains.
"""

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import machine
import numpy as np
import pandas as pd
import tifffile
import torch

from longvit.cohort.patients import read_cohort
from longvit.config import SubtypeTask
from longvit.finetuning.data import PatientDataset
from longvit.finetuning.predict_sequences import Predicted, predict_and_represent
from longvit.finetuning.site_probe import site_probe
from longvit.formats.predictions_csv import write_predictions
from longvit.model.predictor import load_model
from longvit.tokens.sequences import read_tokens
from longvit.tokens.stain import MACENKO_STAINS, change_stain, find_stains, sampled, stained
from preprocessing.store.store import find_stores, open_store

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs" / "lung"
SETTINGS = {
    "none": ("none", 0.0),
    "augmentation": ("none", 0.2),
    "Macenko": ("macenko", 0.0),
    "Reinhard": ("reinhard", 0.0),
    "Macenko, augmentation": ("macenko", 0.2),
    "Reinhard, augmentation": ("reinhard", 0.2),
}
"""`encoder.input.stain` and `views.stain_jitter` of each setting."""
OTHER_AMOUNTS = np.array([0.8, 1.3])
"""Haematoxylin and eosin of the far laboratory, over those of the first."""
LABORATORIES = {"near": 0.5, "far": 1.0}
"""Part of the way from the first stains to those of `MACENKO_STAINS`, and from the first scanner to the other."""
SCANNER = np.array([[0.92, 0.08, 0.0], [0.04, 0.92, 0.04], [0.0, 0.08, 0.92]])
"""Mixing of colours by the far scanner: no map of densities, so no method can undo it exactly."""


def longvit(*arguments: object) -> None:
    """Run a command of the pipeline."""
    subprocess.run([sys.executable, "-m", "longvit", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def stain_again(lung: Path, name: str) -> Path:
    """Write the cohort's slides in another stain, tile them, and return the folder of their stores.

    Haematoxylin and eosin are those of all slides together; each slide keeps its deviation from them, and everything
    that is neither of the two.
    """
    out, way = lung / name, LABORATORIES[name]
    if (out / "stores").exists():
        return out / "stores"
    pixels = np.concatenate([sampled(open_store(store)) for store in find_stores(lung / "stores").values()])
    stains, _ = find_stains(stained(pixels, 3))
    unmix = np.linalg.pinv(stains)
    there = MACENKO_STAINS @ np.diag(OTHER_AMOUNTS) @ unmix - stains @ unmix
    matrix = np.column_stack([np.eye(3) + way * there, np.zeros(3)]).astype(np.float32)
    scanner = np.eye(3) + way * (SCANNER - np.eye(3))
    (out / "slides").mkdir(parents=True, exist_ok=True)
    options = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 85}, "metadata": None}
    for slide in sorted((lung / "cohort" / "slides").glob("*.svs")):
        image = change_stain(tifffile.imread(slide, key=0), matrix)
        image = (image @ scanner.T + 0.5).clip(0, 255).astype(np.uint8)
        head = "Aperio Image Library\n|AppMag = 20|MPP = 0.5"
        with tifffile.TiffWriter(out / "slides" / slide.name) as file:
            file.write(image, tile=(240, 240), description=head, **options)
            file.write(image[::8, ::8], rowsperstrip=16, description="Aperio Image Library\n-", **options)
            file.write(
                image.reshape(-1, 4, image.shape[1] // 4, 4, 3).mean((1, 3)).astype(np.uint8),
                tile=(240, 240),
                description="Aperio Image Library\n-",
                **options,
            )
    longvit(
        "tile", "--config", CONFIGS / "tile.yaml", "--slides", out / "slides", "--out", out / "stores", "--workers", 1
    )
    return out / "stores"


def train(name: str, lung: Path, epochs: int) -> Path:
    """Return the folder of a run: encoder and heads of one setting, trained on the first stain."""
    stain, jitter = SETTINGS[name]
    folder = lung / "stain" / name.replace(", ", "_")
    longvit(
        "pretrain",
        "--config",
        CONFIGS / "pretrain.yaml",
        "--encoder.input.stain",
        stain,
        "--views.stain-jitter",
        jitter,
        "--optimiser.epochs",
        epochs,
        "--out",
        folder / "pretrain",
        "--loader-workers",
        0,
        "--device",
        "cpu",
    )
    longvit(
        "finetune",
        "--config",
        CONFIGS / "finetune_subtype.yaml",
        "--checkpoint",
        folder / "pretrain" / "encoder.safetensors",
        "--shuffles",
        0,
        "--out",
        folder / "subtype",
    )
    return folder / "subtype"


def predict(run: Path, lung: Path, stores: Path) -> dict[int, Predicted]:
    """Return the predictions of each fold's model for the test patients of its fold, from some stores."""
    found, table = find_stores(stores), pd.read_csv(run / "predictions.csv")
    cohort = read_cohort(lung / "cohort" / "dataset.csv", SubtypeTask())
    predicted = {}
    for fold, rows in table[table["split"] == "test"].groupby("fold"):
        model = load_model(run / f"fold_{fold}" / "model.safetensors")
        read = partial(read_tokens, found, model.required_encoder.config.input)
        patients = PatientDataset(list(dict.fromkeys(rows["patient_id"])), cohort, cohort.targets, read)
        predicted[int(str(fold))] = predict_and_represent(
            model, patients, torch.device("cpu"), {"fold": fold, "split": "test"}
        )
    return predicted


def score(predicted: dict[int, Predicted], out: Path) -> list[str]:
    """Return AUROC and accuracy of all test patients, pooled, with their intervals."""
    write_predictions(out / "predictions.csv", [row for one in predicted.values() for row in one.rows])
    longvit("evaluate", out / "predictions.csv", "--out", out)
    pooled = json.loads((out / "metrics.json").read_text())["pooled"]
    numbers = [pooled[name] for name in ("auroc", "accuracy")]
    return [f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in numbers]


def hospitals(first: dict[int, Predicted], second: dict[int, Predicted]) -> list[str]:
    """Return the balanced accuracy of the probes for stain and label, every other patient in the second stain.

    The encoder is frozen, so the patients of all folds are probed together.
    """
    vectors, patients, labels = [], [], {}
    for fold in first:
        for row, *both in zip(first[fold].rows, first[fold].vectors_ND, second[fold].vectors_ND, strict=True):
            patients.append(row["patient_id"])
            labels[row["patient_id"]] = row["label"]
            vectors.append(both[int(row["patient_id"][-4:]) // 2 % 2].numpy())
    sites = {case: f"stain {int(case[-4:]) // 2 % 2}" for case in labels}
    probed = site_probe(np.array(vectors), patients, sites, labels, 0)
    return [f"{one.balanced_accuracy:.2f}" for one in (probed.site, probed.label)]


def page(rows: list[str], about: list[str]) -> str:
    """Return the text of `stain.md`."""
    lines = "\n".join(f"- {line}" for line in about)
    return f"""# Another stain

The lung cohort in three stains. In the far laboratory haematoxylin and eosin have other colours and amounts, and the
scanner mixes colours; the near laboratory is halfway. Encoders are pretrained and heads are trained on the first stain
only, and predict the test patients of five folds in all three, pooled, with 95 % intervals over patients. Macenko and
Reinhard are `encoder.input.stain`, augmentation is `views.stain_jitter` of 0.2 in pretraining. Hospital: balanced
accuracy of a linear probe (`site_probe`) that tells the first stain from the far one if half of the patients are in
each; chance is 0.50. Label: the same probe for the subtype.

CONCLUSION

Written by `tests/benchmarks/stain.py`.

{lines}

| setting | first, AUROC | accuracy | near, AUROC | accuracy | far, AUROC | accuracy | hospital | label |
|---|---|---|---|---|---|---|---:|---:|
{chr(10).join(rows)}
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of pretraining")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=HERE / "stain.md")
    a = parser.parse_args()
    about, rows, out, lung = machine.describe(("numpy", "torch")), [], a.out.resolve(), Path("lung")
    os.chdir(a.work)
    stores = [lung / "stores", *(stain_again(lung, laboratory) for laboratory in LABORATORIES)]
    for name in a.settings:
        run = train(name, lung, a.epochs)
        found = [predict(run, lung, one) for one in stores]
        cells = [cell for i, one in enumerate(found) for cell in score(one, run.parent / f"stain_{i}")]
        rows.append(f"| {' | '.join([name, *cells, *hospitals(found[0], found[-1])])} |")
        print(rows[-1], flush=True)
        out.write_text(page(rows, about), encoding="utf-8")


if __name__ == "__main__":
    main()
