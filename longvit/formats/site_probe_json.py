"""Schema of fold_<k>/site_probe.json: how well hospitals are recognised in a fold's representations, and the label."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from longvit.formats.bounded import read_text
from preprocessing.errors import CohortError
from preprocessing.jobs.files import write_whole

SITE_PROBE = "site_probe.json"
MAX_BYTES = 100_000


class Probed(BaseModel):
    """Result of a linear probe for one property of patients."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    n_classes: int = Field(ge=2)
    """Number of classes to choose from."""
    balanced_accuracy: float = Field(ge=0, le=1)
    """Mean over the classes of the share of patients that are recognised; chance is 1 / n_classes."""
    chance_error: float = Field(ge=0)
    """Standard error of the balanced accuracy of guesses."""


class SiteProbe(BaseModel):
    """Probes on the held-out patients of one fold."""

    model_config = ConfigDict(frozen=True)
    n_patients: NonNegativeInt
    """Patients of hospitals with enough patients."""
    site: Probed | None
    """Probe for the hospital; None if it is impossible."""
    label: Probed | None
    """Probe for the class or the event of the same patients; None if it is impossible."""
    reason: str | None = Field(max_length=500)
    """Reason why there is no probe for the hospital, or None."""


def write_site_probe(folder: Path, probe: SiteProbe) -> None:
    """Write site_probe.json, completely or not at all."""
    write_whole(folder / SITE_PROBE, probe.model_dump_json(indent=2) + "\n")


def read_site_probe(folder: Path) -> SiteProbe | None:
    """Return the probe of a fold, or None if the folder has no site_probe.json.

    Raises:
        CohortError: The file cannot be read or is not a site_probe.json.
    """
    path = folder / SITE_PROBE
    text = read_text(path, MAX_BYTES)
    try:
        return None if text is None else SiteProbe.model_validate_json(text)
    except ValidationError as error:
        what = f"the probe of hospitals cannot be read ({error.errors()[0]['msg']})"
        raise CohortError(what, where=path, fix="copy the file of the run again, or delete it") from None
