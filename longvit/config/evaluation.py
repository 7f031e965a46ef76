"""Settings of `evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from longvit.config import required
from preprocessing.config import StageConfig


class EvaluateConfig(StageConfig):
    """predictions.csv -> metrics.json and report.html. Loads no torch."""

    predictions: Annotated[Path, required.PREDICTIONS]
    """File `predictions.csv`, as `longvit finetune` writes it."""
    out: Path | None = None
    """Folder for `metrics.json`, `report.html`, `report.md` and figures; default: the folder of the predictions."""
    split: Literal["test", "val"] = "test"
    """Part of each fold that is evaluated."""
    name: str = "Model"
    """Name of the model in the tables."""
    baseline: Annotated[dict[str, Path], required.PREDICTIONS] = Field(default={})
    """Predictions of more baselines for the same patients in the same folds, by name: `--baseline.clam clam.csv`. Each
    gets a row next to the model, with the difference between the two. Baselines of `longvit finetune --baselines` are
    added by themselves."""
    compare: Annotated[Path | None, required.PREDICTIONS] = None
    """Predictions of one more model for the same patients, named after its file."""
    clinical: Annotated[Path | None, required.CLINICAL] = None
    """Clinical table (`patient_id` or `case_id`; age; sex, gender or is_female; stage). A Cox regression combines the
    predicted risk with these covariates. Survival only."""
    pseudonyms: Path | None = None
    """File with a key. In all output, patients, slides and sites get names made of the key and their ids (HMAC-SHA256).
    A missing file is created; the same key gives the same names in `evaluate`, `explain` and `view`."""
