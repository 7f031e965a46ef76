"""What the audit of the splits found, as it lies beside predictions.csv, for the report to repeat."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from preprocessing.errors import CohortError

AUDIT_FILE = "audit.json"


class Finding(BaseModel):
    """One thing that the audit found."""

    model_config = ConfigDict(frozen=True)
    level: str
    what: str
    where: str = ""
    fix: str = ""
    category: str = ""
    names: tuple[str, ...] = ()


class Audit(BaseModel):
    """All that it found, and what was accepted in spite of it."""

    model_config = ConfigDict(frozen=True)
    findings: tuple[Finding, ...] = ()
    accepted: tuple[str, ...] = ()

    @property
    def leaks(self) -> frozenset[str]:
        """Patients in two parts of a fold, whom the user of the splits accepted by name or all together."""
        found = (one for one in self.findings if (one.category, one.level) == ("leak", "accepted"))
        return frozenset(name for one in found for name in one.names)


def read_audit(predictions: Path) -> Audit | None:
    """The audit beside a predictions.csv; None where there is none.

    Raises:
        CohortError: The file is no audit.
    """
    path = predictions.with_name(AUDIT_FILE)
    if not path.is_file():
        return None
    try:
        return Audit.model_validate_json(path.read_bytes())
    except ValidationError as error:
        what = f"the audit cannot be read ({error.errors()[0]['msg']})"
        raise CohortError(what, where=path, fix="run `longvit audit` again, or remove the file") from None
