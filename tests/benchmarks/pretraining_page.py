"""Page and figure of a cohort, from the predictions of the same heads on several encoders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import machine
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from longvit.evaluation.folds import evaluate_folds
from longvit.evaluation.intervals import percentile_interval
from longvit.evaluation.predictions import read_predictions

LIBRARIES = ("torch", "lightly", "pytorch-lightning", "scikit-learn")
COLOURS = {"moco": "#00618e", "dino": "#c25b00", "masked": "#5b8f22"}  # distinct for colour-blind readers


class Start(Protocol):
    """Encoder that was evaluated; `pretraining.Start` is the implementation."""

    cohort: str
    objective: str
    seed: int
    folder: Path


@dataclass(frozen=True)
class Judged:
    """Results of a head on encoders of one kind, over the seeds."""

    values: np.ndarray
    """Pooled AUROC or c-index on held-out patients (seeds,)."""
    resampled: np.ndarray
    """Mean over the seeds (resamples,); a resample has the same patients for every seed and every encoder."""


def judged(starts: Sequence[Start], head: str) -> Judged:
    """Return the pooled headline metric of a head on the encoders of `starts`."""
    found = [evaluate_folds(read_predictions(start.folder / head / "predictions.csv")) for start in starts]
    name = found[0].metrics["headline"]
    values = np.array([one.metrics["pooled"][name]["value"] for one in found])
    return Judged(values, np.mean([one.resampled["pooled"][name] for one in found], axis=0))


def rows(starts: Sequence[Start], heads: Sequence[str]) -> Iterator[str]:
    """Yield a row per kind of encoder: the metric of each head, and its difference from the random encoder."""
    kinds = list(dict.fromkeys(start.objective for start in starts))
    table = {
        kind: [judged([start for start in starts if start.objective == kind], head) for head in heads] for kind in kinds
    }
    for kind in kinds:
        cells = [cell(one, at_random) for one, at_random in zip(table[kind], table["random"], strict=True)]
        yield f"| {kind} | {' | '.join(cells)} | {cost([start for start in starts if start.objective == kind])} |"


def cell(one: Judged, at_random: Judged) -> str:
    """Format mean ± standard deviation over seeds with the interval over patients, and the difference from random."""
    said = f"{spread(one.values)} ({between(one.resampled)})"
    if one is at_random:
        return said
    above = one.values.mean() - at_random.values.mean()
    return f"{said}<br>{above:+.3f} ({between(one.resampled - at_random.resampled)})"


def between(resampled: np.ndarray) -> str:
    """Format the 95 % interval of resampled values."""
    low, high = percentile_interval(resampled) or (np.nan, np.nan)
    return f"{low:.3f} to {high:.3f}"


def probed(starts: Sequence[Start]) -> Iterator[str]:
    """Yield a row per objective: the probe of `longvit pretrain` before and after pretraining, and each seed's gain."""
    for kind in COLOURS:
        tables = [course(start) for start in starts if start.objective == kind]
        first, last = (np.array([table["probe_linear"].iloc[row] for table in tables]) for row in (0, -1))
        gains = ", ".join(f"{gain:+.3f}" for gain in last - first)
        yield f"| {kind} | {spread(first)} | {spread(last)} | {gains} |"


def course(start: Start) -> pd.DataFrame:
    """Return the probed epochs of a run; the first row is the encoder with random weights."""
    return pd.read_csv(start.folder / "pretrain" / "metrics.csv").dropna(subset="probe_linear")


def spread(values: np.ndarray) -> str:
    """Format mean and standard deviation over seeds."""
    return f"{values.mean():.3f} ± {values.std(ddof=1) if len(values) > 1 else 0.0:.3f}"


def cost(starts: Sequence[Start]) -> str:
    """Format the minutes of pretraining and the share spent waiting for data, medians over the seeds."""
    timings = [path for start in starts if (path := start.folder / "pretrain" / "timing.csv").exists()]
    if not timings:
        return ""
    tables = [pd.read_csv(path) for path in timings]
    minutes = np.median([table["seconds"].sum() / 60 for table in tables])
    waited = np.median([(table["data_wait"] * table["seconds"]).sum() / table["seconds"].sum() for table in tables])
    return f"{minutes:.1f} min, {waited:.0%} waiting"


def write(path: Path, starts: Sequence[Start], heads: Sequence[str]) -> None:
    """Write the page of a cohort, and its figure next to it."""
    figure = path.with_suffix(".png")
    draw(figure, starts)
    about = "\n".join(f"- {line}" for line in machine.describe(LIBRARIES))
    titles = " | ".join(head.replace("_", ", ") for head in heads)
    body, probes = ("\n".join(lines) for lines in (rows(starts, heads), probed(starts)))
    seeds = len({start.seed for start in starts})
    path.write_text(f"""# Benefit of self-supervision: the {starts[0].cohort} cohort

The same encoder (`configs/lung`) with random weights and after three objectives of pretraining on the cohort's
slides, without labels; then the same heads on the same five folds. `probe`: the encoder is frozen, the head is
linear. `finetune`: all weights are trained. AUROC for subtypes, c-index for survival, on held-out patients,
pooled over folds.

A cell is the mean ± standard deviation over {seeds} seeds, each with its own weights, views and heads. In
brackets is the 95 % interval from resampling patients. The second line is the difference from the random
encoder, on the same resamples. Pretraining uses the slides of all patients, also of later test patients, but no
label.

The weight decay of the linear heads was chosen on encoders of MoCo and DINO of the lung cohort, and may be too
strong for other encoders. So the second table has the probe that `longvit pretrain` computes during a run:
scikit-learn's logistic regression with default settings, on the same vectors, for the subtype, with its own
folds.
Written by `tests/benchmarks/pretraining.py`.

{about}

| encoder | {titles} | pretraining |
|---|{"---|" * (len(heads) + 1)}
{body}

| logistic regression | random weights | pretrained | gain, each seed |
|---|---|---|---|
{probes}

![Linear probe over pretraining]({figure.name})
""")


def draw(path: Path, starts: Sequence[Start]) -> None:
    """Draw the linear probe on held-out patients over the epochs of pretraining, a line per seed."""
    figure, axes = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
    for start in starts:
        if start.objective in COLOURS:
            table, first = course(start), start.seed == min(one.seed for one in starts)
            style = {"color": COLOURS[start.objective], "label": start.objective if first else None}
            axes.plot(table["epoch"] + 1, table["probe_linear"], "o-", ms=3, lw=1.2, **style)
    axes.axhline(0.5, color="0.6", lw=0.8)
    axes.set(title=starts[0].cohort, xlabel="epochs of pretraining", ylabel="AUROC of a linear probe")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
