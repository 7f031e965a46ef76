"""Settings of the demo."""

from pathlib import Path
from typing import Annotated

from pydantic import NonNegativeInt, PositiveInt

from longvit.config import required
from preprocessing.config import StageConfig


class DemoConfig(StageConfig):
    """The whole pipeline on a synthetic cohort."""

    out: Path = Path("demo")
    """Folder for slides, stores, runs and the report."""
    configs: Annotated[Path | None, required.FOLDER] = None
    """Folder of the settings (`pretrain.yaml`, ...); default: the shipped `tiny` settings."""
    cohort: Annotated[Path | None, required.FOLDER] = None
    """Cohort to use instead of a synthetic one: a folder with `slides/`, `dataset.csv` and `splits/`."""
    patients: PositiveInt = 40
    """Patients in the synthetic cohort."""
    seed: NonNegativeInt = 0
    """Seed of the synthetic cohort."""
    overwrite: bool = False
    """Start again: first remove the results of an earlier demo in `out`."""
