"""Verb `evaluate`: predictions.csv -> metrics.json, report.html and figures."""

import datetime
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from longvit import __version__
from longvit.config import EvaluateConfig
from longvit.evaluation.figures import draw_figures
from longvit.evaluation.folds import evaluate
from longvit.evaluation.predictions import read_predictions
from longvit.evaluation.report import Section, evaluation_section, page

LIBRARIES = ("numpy", "scikit-learn", "scikit-survival", "lifelines")


@dataclass(frozen=True)
class Evaluation:
    """What `run` wrote.

    Attributes:
        metrics: Content of `metrics.json`, see `evaluate_predictions`.
        section: This evaluation's part of a page, for `combine_reports`.
        report_path: The page.
        exit_code: 0; what cannot be evaluated raises.
    """

    metrics: dict[str, Any]
    section: Section
    report_path: Path
    exit_code: int = 0


def run(config: EvaluateConfig, *, date: datetime.date | None = None) -> Evaluation:
    """Write `metrics.json`, `report.html` and `figures/*.svg|png` of one `predictions.csv`.

    Everything is computed before the first file is written, and each file is replaced as a whole: after an error the
    folder is as it was.

    Args:
        config: Predictions, part of the folds, and folder.
        date: Day that the report names; default today.

    Raises:
        CohortError: The predictions cannot be evaluated; the message names columns and lines.
    """
    predictions = read_predictions(config.predictions)
    metrics = evaluate(predictions, config.split)
    drawings = draw_figures(predictions, metrics)
    section = evaluation_section(metrics, drawings, _provenance(metrics, date or datetime.date.today()))
    out = config.out or config.predictions.parent
    for drawing in drawings:
        _replace(out / "figures" / f"{drawing.name}.svg", drawing.svg.encode())
        _replace(out / "figures" / f"{drawing.name}.png", drawing.png)
    _replace(out / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False).encode() + b"\n")
    return Evaluation(metrics, section, write_report(out / "report.html", [section], "LongViT evaluation"))


def combine_reports(evaluations: Sequence[Evaluation], path: Path, title: str) -> Path:
    """One page of several evaluations, for instance subtyping and survival of one cohort."""
    return write_report(path, [evaluation.section for evaluation in evaluations], title)


def write_report(path: Path, sections: Iterable[Section], title: str) -> Path:
    """Write one self-contained HTML page and return its path."""
    _replace(path, page(sections, title).encode())
    return path


def _provenance(metrics: dict[str, Any], date: datetime.date) -> dict[str, str]:
    versions = [f"{name} {version(name)}" for name in LIBRARIES]
    return {
        "Predictions": metrics["source"]["file"],
        "sha256": metrics["source"]["sha256"],
        "Split": metrics["split"],
        "Bootstrap": f"{metrics['bootstrap']['resamples']} resamples, seed {metrics['bootstrap']['seed']}",
        "Date": date.isoformat(),
        "Versions": ", ".join([f"longvit {__version__}", *versions, f"Python {platform.python_version()}"]),
    }


def _replace(path: Path, content: bytes) -> None:
    """Write `path` as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
