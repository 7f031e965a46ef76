"""Settings of tables, classes, audits and splits: what `split`, `audit` and `finetune` ask of a cohort."""

from pathlib import Path
from typing import Annotated, Literal, Union

from pydantic import Field, NonNegativeInt

from longvit.config.required import SPLITS, STORES, TABLE
from longvit.tasks import TASKS
from longvit.tasks.subtype_task import SubtypeTask
from preprocessing.config import StageConfig

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
AnyTask = Annotated[Union[TASKS], Field(discriminator="kind")]  # noqa: UP007 - of the registry
"""A task of the registry, chosen by its `kind`."""


class TableConfig(StageConfig):
    """Which patients, slides and targets there are."""

    table: Annotated[Path, TABLE]
    """CSV (zipped or not) or Excel with `case_id`, `slide_id` and the task's columns; `.svs` endings do not matter.
    STAMP's names `PATIENT` and `FILENAME` are understood."""
    slide_table: Annotated[Path | None, TABLE] = None
    """A second table with the patient of each slide (`PATIENT`, `FILENAME`), where `table` has a row per patient."""
    site_column: str | None = None
    """Column with the hospital a patient comes from; default: characters 6 and 7 of TCGA barcodes."""
    task: AnyTask = SubtypeTask()
    """What is predicted."""


class SplitsConfig(TableConfig):
    """A cohort with its splits, and what of the audit's findings is accepted."""

    stores: Annotated[Path | None, STORES] = None
    """Folder of stores, to compare with the table and to find equal slides by their hash."""
    splits: Annotated[Path, SPLITS]
    """Folder of `splits_<k>.csv` with columns train, val and test, of slide ids or case ids."""
    folds: tuple[NonNegativeInt, ...] | None = None
    """Folds to use; default all."""
    move_leaks_to: Part | None = None
    """Put a patient who stands in several parts of a fold into this one; without it such folds are refused."""
    accept: tuple[str, ...] = ()
    """Findings of the audit to go on with, as `category` or `category:name`, for one `missing-slides` or
    `leak:TCGA-A1-A0SB`; every report repeats them."""


class AuditConfig(SplitsConfig):
    """Are these splits sound? Patients in two parts, missing slides, duplicates, shared sites, counts."""

    out: Path | None = None
    """Folder that receives `audit.json`, and the splits as they were mended."""


class SplitConfig(TableConfig):
    """Table -> splits: by patient, stratified by class or event, in three parts."""

    out: Path
    """Folder that receives `splits_<k>.csv`, of slide ids."""
    folds: int = Field(default=5, ge=3)
    """Folds; each patient is in test of one, in val of another, and in train of the rest."""
    keep_sites_together: bool = False
    """Keep the patients of a site in one part, so that test patients come from hospitals unseen in training."""
    seed: NonNegativeInt = 0
    """Seed of the draw."""
    overwrite: bool = False
    """Start again: first remove the splits of an earlier run in `out`."""
