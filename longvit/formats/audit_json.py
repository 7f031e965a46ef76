"""Schema of audit.json: findings about a cohort and its splits, accepted findings, and counts of every part."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from longvit.formats.bounded import read_text
from preprocessing.errors import CohortError
from preprocessing.jobs.files import write_whole

AUDIT = "audit.json"
MAX_BYTES = 5_000_000
"""Largest number of bytes that are read: a hundred times the size of a usual file."""


class Finding(BaseModel):
    """Defect or property of a cohort that affects the results."""

    model_config = ConfigDict(frozen=True)
    category: str = ""
    """Key of `CATEGORIES` or `NOTES` in `longvit.cohort.findings`."""
    level: str
    """`error` stops the run; `accepted` would have stopped it, but the user accepted it; `note` is information."""
    what: str
    """Sentence with the first few names."""
    where: str = ""
    """File or folder."""
    fix: str = ""
    """Advice for the user."""
    names: tuple[str, ...] = ()
    """All patients, slides or classes that the finding is about."""


class AuditFile(BaseModel):
    """Content of audit.json."""

    model_config = ConfigDict(frozen=True)
    findings: tuple[Finding, ...] = ()
    """All findings, in the order of the checks."""
    accepted: tuple[str, ...] = ()
    """Entries of the setting `accept` that were needed."""
    verdict: str = ""
    """Sentence on whether the splits can be trained on."""
    flow: tuple[tuple[str, int], ...] = ()
    """Flow of patients: steps in order, each with the number of patients who are left after it."""
    counts: tuple[dict[str, Any], ...] = ()
    """Row for each part of each fold: `fold`, `part`, `patients`, `slides`, and patients per class or `events`."""

    @property
    def leaks(self) -> frozenset[str]:
        """Patients in two parts of a fold that the user accepted, by name or all together."""
        found = (one for one in self.findings if (one.category, one.level) == ("leak", "accepted"))
        return frozenset(name for one in found for name in one.names)


def write_audit(folder: Path, audit: AuditFile) -> None:
    """Write audit.json through a temporary name."""
    write_whole(folder / AUDIT, json.dumps(audit.model_dump(), indent=1, ensure_ascii=False) + "\n")


def read_audit(folder: Path) -> AuditFile | None:
    """Return the audit in a folder, or None if it has no audit.json.

    Raises:
        CohortError: The file cannot be read or is not an audit.
    """
    text = read_text(folder / AUDIT, MAX_BYTES)
    try:
        return None if text is None else AuditFile.model_validate_json(text)
    except ValidationError as error:
        what = f"the audit cannot be read ({error.errors()[0]['msg']})"
        fix = "run `longvit audit` again, or remove the file"
        raise CohortError(what, where=folder / AUDIT, fix=fix) from None
