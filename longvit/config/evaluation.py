"""Settings of the evaluation."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from longvit.config import required
from preprocessing.config import StageConfig


class EvaluateConfig(StageConfig):
    """predictions.csv -> metrics.json and report.html. Loads no torch."""

    predictions: Annotated[Path, required.PREDICTIONS]
    """A `predictions.csv` as `longvit finetune` writes it."""
    out: Path | None = None
    """Folder for `metrics.json`, `report.html`, `report.md` and figures; default: beside the predictions."""
    split: Literal["test", "val"] = "test"
    """Part of each fold that is evaluated."""
    name: str = "Model"
    """What the tables call the model."""
    baseline: Annotated[dict[str, Path], required.PREDICTIONS] = Field(default={})
    """More baselines for the same patients in the same folds, by name: `--baseline.clam clam.csv`; each gets a row
    beside the model, with the difference between the two, as those do that `longvit finetune --baselines` trained."""
    compare: Annotated[Path | None, required.PREDICTIONS] = None
    """Predictions of one more model for the same patients, called by the name of its file."""
    clinical: Annotated[Path | None, required.CLINICAL] = None
    """Table of patients (`patient_id` or `case_id`; age, sex or gender or is_female, stage): the risk is put beside
    these in a Cox regression. Survival only."""
    pseudonyms: Path | None = None
    """File with a key: in all that is written patients, slides and sites go by names made of the key and their ids
    (HMAC-SHA256). A file that does not exist is made; the same key gives the same names in `evaluate`, `explain` and
    `view`."""
