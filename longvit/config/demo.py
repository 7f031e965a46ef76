"""Settings of the demo."""

from pathlib import Path
from typing import Annotated

from pydantic import NonNegativeInt, PositiveInt

from longvit.config import required
from preprocessing.config import StageConfig


class DemoConfig(StageConfig):
    """The whole line, on a cohort that it makes itself."""

    out: Path = Path("demo")
    """Folder for slides, stores, runs and the report."""
    configs: Annotated[Path | None, required.FOLDER] = None
    """Folder of the settings (`pretrain.yaml`, ...); default: the shipped `tiny` ones."""
    cohort: Annotated[Path | None, required.FOLDER] = None
    """A cohort to run the line on instead: a folder with `slides/`, `dataset.csv` and `splits/`."""
    patients: PositiveInt = 40
    """Patients in the cohort that is made."""
    seed: NonNegativeInt = 0
    """Seed of the cohort that is made."""
    overwrite: bool = False
    """Start again: first remove the results of an earlier demo in `out`."""
