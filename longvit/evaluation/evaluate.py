"""Verb `evaluate`: predictions.csv -> metrics.json, report.html, report.md and figures."""

import datetime
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from longvit import __version__
from longvit.cohort.clinical import read_clinical
from longvit.config import EvaluateConfig
from longvit.evaluation.compare import compared, require_same_patients
from longvit.evaluation.cox import cox_regression
from longvit.evaluation.folds import evaluate_folds
from longvit.evaluation.predictions import Predictions, read_predictions
from longvit.evaluation.report.content import ReportContent
from longvit.evaluation.report.figures import draw_figures
from longvit.evaluation.report.markdown import markdown_report
from longvit.evaluation.report.page import Section, evaluation_section, page
from longvit.evaluation.report.text_tables import detail_tables
from longvit.evaluation.run_files import baseline_predictions, read_notes, site_probes, training_settings
from longvit.evaluation.shared import shared_audit, shared_settings
from longvit.formats.audit_json import read_audit
from longvit.formats.metrics_json import METRICS, Metrics, metrics_text, read_metrics
from longvit.runs.folder import REPORT
from longvit.runs.input_hashes import hash_file
from longvit.runs.privacy import Pseudonyms, shareable_command
from preprocessing.errors import CohortError
from preprocessing.jobs.atomic_folder import locked
from preprocessing.jobs.files import write_whole

LIBRARIES = ("numpy", "scikit-learn", "scikit-survival", "lifelines")


@dataclass(frozen=True)
class Evaluation:
    """Result of `run`.

    Attributes:
        metrics: Content of `metrics.json`, see `evaluate_predictions`.
        section: This evaluation's part of a page, for `combine_reports`.
        report_path: The page.
        exit_code: 0; predictions that cannot be evaluated raise an error.
    """

    metrics: dict[str, Any]
    section: Section
    report_path: Path
    exit_code: int = 0


def run(config: EvaluateConfig, *, date: datetime.date | None = None) -> Evaluation:
    """Write `metrics.json`, `report.html`, `report.md` and `figures/*.svg|png` of one `predictions.csv`.

    Everything is computed before the first file is written, and each file is replaced as a whole: after an error the
    folder is unchanged.

    Args:
        config: Predictions, part of the folds, and folder.
        date: Date in the report; default: today.

    Raises:
        CohortError: The predictions cannot be evaluated; the message names columns and lines.
    """
    predictions = read_predictions(config.predictions)
    metrics = evaluate_request(config, predictions)
    names, audit = Pseudonyms.read(config.pseudonyms), read_audit(config.predictions.parent)
    audit = audit and shared_audit(audit, names)
    if audit is not None and audit.accepted:
        metrics["warnings"].append(f"Errors that the audit found were accepted: {', '.join(audit.accepted)}.")
    drawings = draw_figures(predictions, metrics)
    tables = detail_tables(metrics, audit)
    provenance = _provenance(metrics, date or datetime.date.today())
    content = ReportContent(metrics, drawings, tables, provenance, _settings(config, names))
    section = evaluation_section(content)
    document = metrics_text(metrics)
    text = markdown_report(content)
    out = config.out or config.predictions.parent
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", out):
        _print_changes(out, Metrics.model_validate(metrics))
        for drawing in drawings:
            write_whole(out / "figures" / f"{drawing.name}.svg", drawing.svg)
            write_whole(out / "figures" / f"{drawing.name}.png", drawing.png)
        write_whole(out / METRICS, document)
        write_whole(out / "report.md", text)
        return Evaluation(metrics, section, write_report(out / REPORT, [section], "LongViT evaluation"))


def evaluate_request(config: EvaluateConfig, predictions: Predictions) -> dict[str, Any]:
    """Return the metrics of the model, with its baselines and its clinical covariates.

    Raises:
        CohortError: Another model has other patients, a name is used twice, or the clinical table does not fit.
    """
    clinical = None if config.clinical is None else read_clinical(config.clinical)
    if clinical is not None and predictions.task != "survival":
        fix = "remove --clinical, or give predictions of survival"
        raise CohortError("a clinical table is used for survival only", where=config.clinical, fix=fix)
    paths = _others(config)
    others = {name: read_predictions(path) for name, path in paths.items()}
    for name, other in others.items():
        require_same_patients(predictions, other, config.split, name)
    ours = evaluate_folds(predictions, config.split)
    beside = compared(ours, {name: evaluate_folds(other, config.split) for name, other in others.items()})
    models = [entry | {"notes": read_notes(paths[entry["name"]])} for entry in beside]
    probes = [{"fold": fold, **probe.model_dump()} for fold, probe in site_probes(config.predictions).items()]
    metrics = ours.metrics | {"name": config.name, "models": models} | ({"site_probe": probes} if probes else {})
    if clinical is None or config.clinical is None:
        return metrics
    rows = predictions.part(config.split)
    if not rows["patient_id"].isin(clinical.table.index).any():
        what = f"no patient of the predictions is in the clinical table, for example {rows['patient_id'][0]}"
        raise CohortError(what, where=config.clinical, fix="use the same patient names in both")
    source = {"file": config.clinical.name, "sha256": hash_file(config.clinical)}
    return metrics | {"cox": cox_regression(rows, clinical), "clinical": source}


def _others(config: EvaluateConfig) -> dict[str, Path]:
    """Return the predictions of every other model by name: the run's own baselines, then those given."""
    given = {path.resolve() for path in config.baseline.values()}
    own = {name: path for name, path in baseline_predictions(config.predictions).items() if path.resolve() not in given}
    compare = {} if config.compare is None else {config.compare.stem: config.compare}
    times = Counter([config.name, *own, *config.baseline, *compare])
    repeated = sorted(name for name, count in times.items() if count > 1)
    if repeated:
        fix = "give each model a name of its own with --name and --baseline.NAME"
        what = f"two models have the name {', '.join(repeated)}"
        raise CohortError(what, where="name, baseline, compare", fix=fix)
    return own | config.baseline | compare


def _print_changes(folder: Path, metrics: Metrics) -> None:
    """Print the files that differ from an earlier evaluation in the same folder."""
    path, now = folder / METRICS, metrics.sources
    try:
        earlier = read_metrics(folder)
    except CohortError:
        print(f"{path} is damaged and is replaced", file=sys.stderr)
        return
    if earlier is None:
        return
    then = earlier.sources
    found = {
        "changed": [name for name in now if name in then and now[name] != then[name]],
        "new": [name for name in now if name not in then],
        "no longer given": [name for name in then if name not in now],
    }
    day = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    for what, names in found.items():
        if names:
            print(f"since the evaluation of {day}: {what}: {', '.join(names)}", file=sys.stderr)


def combine_reports(evaluations: Sequence[Evaluation], path: Path, title: str) -> Path:
    """Write one page of several evaluations, for instance subtyping and survival of one cohort; return its path."""
    return write_report(path, [evaluation.section for evaluation in evaluations], title)


def write_report(path: Path, sections: Iterable[Section], title: str) -> Path:
    """Write one self-contained HTML page and return its path."""
    write_whole(path, page(sections, title))
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


def _settings(config: EvaluateConfig, names: Pseudonyms) -> dict[str, str]:
    """Return the command of this evaluation, and the settings of the training if they are known."""
    given = config.model_dump(mode="json", exclude_defaults=True, exclude={"predictions", "out", "pseudonyms"})
    flags = []
    for key, value in given.items():
        pairs = [(f"{key}.{name}", path) for name, path in value.items()] if isinstance(value, dict) else [(key, value)]
        flags += [word for name, written in pairs for word in (f"--{name}", written)]
    settings = {"Command": shlex.join(shareable_command(["longvit", "evaluate", str(config.predictions), *flags]))}
    ours = config.model_dump(mode="json", exclude={"out", "pseudonyms"})
    settings["Configuration of this evaluation"] = shared_settings(ours, names)
    training = training_settings(config.predictions)
    if training is not None:
        settings["Configuration of the training"] = shared_settings(training, names)
    return settings
