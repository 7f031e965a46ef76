"""Schema of metrics.json: all numbers of one evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from longvit.config import TimeUnit
from longvit.formats.bounded import read_text
from longvit.formats.site_probe_json import SiteProbe
from preprocessing.errors import CohortError

METRICS = "metrics.json"
MAX_BYTES = 100_000_000
Number = dict[str, float | None]
"""Dictionary of `value`, and `low` and `high` of its 95 % interval; None if the number does not exist.

Some numbers have further keys: `shuffled`, mean over models trained on permuted labels; `sd` over folds; two-sided `p`.
"""


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class HashedFile(_Checked):
    """Input file of an evaluation."""

    file: str
    """Name of the file."""
    sha256: str
    """Hash of the file."""


class Counts(_Checked):
    """Sizes of a set of patients."""

    n_patients: int
    n_slides: int
    class_counts: dict[str, int] | None = None
    """Patients of each class; absent for survival."""
    n_events: int | None = None
    """Patients with an observed event; absent for subtyping."""


class FoldMetrics(Counts):
    """Numbers of one fold."""

    fold: int
    reason: str | None
    """Reason why the fold has no numbers, or None."""
    metrics: dict[str, Number] | None
    """Number of each metric."""


class FoldSiteProbe(SiteProbe):
    """Probe of hospitals of one fold."""

    fold: int


class ModelMetrics(_Checked):
    """Numbers of another model for the same patients."""

    name: str
    source: HashedFile
    """Predictions of the model."""
    mean: dict[str, Number]
    pooled: dict[str, Number]
    difference: dict[str, dict[str, Number]]
    """The evaluated model's number minus this model's, by metric, for each of `mean` and `pooled`."""
    notes: tuple[str, ...]
    """Sentences about the model for the report."""


class Metrics(Counts):
    """Content of metrics.json."""

    source: HashedFile
    """Predictions that were evaluated."""
    name: str
    """Name of the evaluated model."""
    task: str
    """Key of `TASKS` in `longvit.formats.predictions_csv`."""
    time_unit: TimeUnit | None = None
    """Unit of all times; absent for subtyping."""
    split: str
    """Part of the folds: train, val or test."""
    headline: str
    """Metric that the report shows first."""
    classes: tuple[str, ...]
    """Class names in the order of `confusion`; empty for survival."""
    folds: tuple[FoldMetrics, ...]
    mean: dict[str, Number]
    """Mean over folds, by metric."""
    pooled: dict[str, Number]
    """Number for all patients together, by metric."""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Patients by true class (rows) and predicted class (columns); absent for survival."""
    reliability: tuple[Number, ...] | None = None
    """Bins of the reliability diagram: `stated`, `observed`, `share` and `n`; absent for survival."""
    over_time: dict[str, Any] | None = None
    """`times`, and a series of numbers at these times for AUC and Brier score; absent for subtyping."""
    risk_groups: tuple[dict[str, Any], ...] | None = None
    """`name`, `n`, `n_events` and `median_time` of the low-risk and high-risk groups; absent for subtyping."""
    cox: dict[str, Any] | None = None
    """Cox regression, see `longvit.evaluation.cox`; absent for subtyping."""
    clinical: HashedFile | None = None
    """Table of the covariates in `cox`."""
    models: tuple[ModelMetrics, ...]
    """Other models that were evaluated next to this model."""
    site_probe: tuple[FoldSiteProbe, ...] | None = None
    """Probe of hospitals for each fold of the run; absent if the run has none."""
    n_shuffles: int
    """Number of permutations of labels that have predictions."""
    bootstrap: dict[str, int | float | str]
    """`resamples`, `seed`, `over` and `level` of the intervals."""
    warnings: tuple[str, ...]
    """Reasons to doubt the numbers, in sentences."""

    @property
    def sources(self) -> dict[str, str]:
        """Hash of each file that the numbers were computed from, by its role."""
        models = {f"predictions of {model.name}": model.source.sha256 for model in self.models}
        clinical = {"clinical table": self.clinical.sha256} if self.clinical else {}
        return {"predictions": self.source.sha256, **models, **clinical}


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """Return the text of metrics.json.

    Raises:
        ValueError: A field of `Metrics` is missing, has another type, or is not finite.
    """
    Metrics.model_validate(metrics)
    return json.dumps(metrics, indent=2, allow_nan=False) + "\n"


def read_metrics(folder: Path) -> Metrics | None:
    """Return the numbers of an earlier evaluation in a folder, or None if it has no metrics.json.

    Raises:
        CohortError: The file cannot be read or is not a metrics.json.
    """
    text = read_text(folder / METRICS, MAX_BYTES)
    try:
        return None if text is None else Metrics.model_validate_json(text)
    except ValidationError as error:
        what = f"the metrics cannot be read ({error.errors()[0]['msg']})"
        raise CohortError(what, where=folder / METRICS, fix="evaluate the predictions again") from None
