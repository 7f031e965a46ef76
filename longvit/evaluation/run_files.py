"""Files that a run writes next to its predictions.csv, for the report to repeat: settings, notes, baselines."""

from pathlib import Path
from typing import Any, Literal

from longvit.config.yaml_reader import read_mapping
from longvit.formats.bounded import read_text
from longvit.formats.predictions_csv import PREDICTIONS
from longvit.formats.site_probe_json import SITE_PROBE, SiteProbe, read_site_probe

CONFIG_FILE, NOTES_FILE = "config.yaml", "notes.txt"
BASELINES = "baselines"
MAX_NOTES = 200_000
"""Maximum size of the notes in bytes, a hundred times the size that a run writes."""
SELECT: tuple[Literal["last", "best_val"], ...] = ("last", "best_val")


def training_settings(predictions: Path) -> dict[str, Any] | None:
    """Return the settings of the run that wrote the predictions, from its config.yaml; None if there is none.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = predictions.with_name(CONFIG_FILE)
    return read_mapping(path) if path.is_file() else None


def selected_epoch(predictions: Path) -> Literal["last", "best_val"] | None:
    """Return the setting `select` of the run that wrote the predictions; None if it is unknown.

    Raises:
        ConfigError: The settings cannot be read.
    """
    select = (training_settings(predictions) or {}).get("select")
    return next((one for one in SELECT if one == select), None)


def baseline_predictions(predictions: Path) -> dict[str, Path]:
    """Return the baselines of the same run: name -> `baselines/<name>/predictions.csv`."""
    return {path.parent.name: path for path in sorted(predictions.with_name(BASELINES).glob(f"*/{PREDICTIONS}"))}


def read_notes(predictions: Path) -> list[str]:
    """Return the sentences that the run wrote about a model; empty if there are none.

    Raises:
        CohortError: The file cannot be read.
    """
    return (read_text(predictions.with_name(NOTES_FILE), MAX_NOTES) or "").splitlines()


def fold_notes(predictions: Path) -> dict[int, list[str]]:
    """Return the notes on the training of each fold, from `fold_<k>/notes.txt`; folds without notes are left out.

    Raises:
        CohortError: A file cannot be read.
    """
    folders = {path.parent.name.removeprefix("fold_"): path for path in predictions.parent.glob(f"fold_*/{NOTES_FILE}")}
    return {int(fold): read_notes(folders[fold]) for fold in sorted(folders) if fold.isdecimal()}


def site_probes(predictions: Path) -> dict[int, SiteProbe]:
    """Return the probe of hospitals of each fold, from `fold_<k>/site_probe.json`; folds without one are left out.

    Raises:
        CohortError: A file cannot be read.
    """
    folders = {
        path.parent.name.removeprefix("fold_"): path.parent for path in predictions.parent.glob(f"fold_*/{SITE_PROBE}")
    }
    found = {int(fold): read_site_probe(folders[fold]) for fold in folders if fold.isdecimal()}
    return {fold: probe for fold, probe in sorted(found.items()) if probe is not None}
