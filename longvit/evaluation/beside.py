"""Files that a run writes next to its predictions.csv, for the report to repeat: audit, settings, notes, baselines."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from longvit.config.yaml_reader import read_mapping
from preprocessing.errors import CohortError

AUDIT_FILE, CONFIG_FILE, NOTES_FILE = "audit.json", "config.yaml", "notes.txt"
BASELINES = "baselines"
MAX_BYTES = {AUDIT_FILE: 5_000_000, NOTES_FILE: 200_000}
"""Largest sizes in bytes, a hundred times the size that a run writes."""
SELECT: tuple[Literal["last", "best_val"], ...] = ("last", "best_val")
COPY = "copy the file of the run again, or remove it"


class Finding(BaseModel):
    """Finding of the audit."""

    model_config = ConfigDict(frozen=True)
    level: str
    what: str
    where: str = ""
    fix: str = ""
    category: str = ""
    names: tuple[str, ...] = ()


class Audit(BaseModel):
    """All findings of the audit, and the accepted entries."""

    model_config = ConfigDict(frozen=True)
    findings: tuple[Finding, ...] = ()
    accepted: tuple[str, ...] = ()

    @property
    def leaks(self) -> frozenset[str]:
        """Return the patients in two parts of a fold, accepted by name or all together."""
        found = (one for one in self.findings if (one.category, one.level) == ("leak", "accepted"))
        return frozenset(name for one in found for name in one.names)


def read_audit(predictions: Path) -> Audit | None:
    """Return the audit next to a predictions.csv; None if there is none.

    Raises:
        CohortError: The file cannot be read or is not an audit.
    """
    text = _read_beside(predictions, AUDIT_FILE)
    try:
        return None if text is None else Audit.model_validate_json(text)
    except ValidationError as error:
        what = f"the audit cannot be read ({error.errors()[0]['msg']})"
        fix = "run `longvit audit` again, or remove the file"
        raise CohortError(what, where=predictions.with_name(AUDIT_FILE), fix=fix) from None


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


def trained_beside(predictions: Path) -> dict[str, Path]:
    """Return the baselines of the same run: name -> `baselines/<name>/predictions.csv`."""
    return {path.parent.name: path for path in sorted(predictions.with_name(BASELINES).glob("*/predictions.csv"))}


def notes_beside(predictions: Path) -> list[str]:
    """Return the sentences that the run wrote about a model; empty if there are none.

    Raises:
        CohortError: The file cannot be read.
    """
    return (_read_beside(predictions, NOTES_FILE) or "").splitlines()


def fold_notes(predictions: Path) -> dict[int, list[str]]:
    """Return the notes on the training of each fold, from `fold_<k>/notes.txt`; folds without notes are left out.

    Raises:
        CohortError: A file cannot be read.
    """
    folders = {path.parent.name.removeprefix("fold_"): path for path in predictions.parent.glob(f"fold_*/{NOTES_FILE}")}
    return {int(fold): notes_beside(folders[fold]) for fold in sorted(folders) if fold.isdecimal()}


def _read_beside(predictions: Path, name: str) -> str | None:
    path = predictions.with_name(name)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES[name] + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"the file cannot be read ({error.strerror if isinstance(error, OSError) else 'it is not UTF-8'})"
        raise CohortError(what, where=path, fix=COPY) from None
    if len(content) > MAX_BYTES[name]:
        what = f"the file has more than {MAX_BYTES[name]:,} bytes, which no run writes"
        raise CohortError(what, where=path, fix=COPY)
    return text
