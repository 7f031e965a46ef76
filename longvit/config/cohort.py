"""Settings of tables, classes, audits and splits: the cohort settings of `split`, `audit` and `finetune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import Field, NonNegativeInt

from longvit.config.required import SPLITS, STORES, TABLE
from longvit.tasks import TASKS
from longvit.tasks.subtype_task import SubtypeTask
from longvit.tasks.task import Task
from preprocessing.config import StageConfig

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
if TYPE_CHECKING:  # type checkers cannot read the registry
    AnyTask = Task
else:
    AnyTask = Annotated[Union[TASKS], Field(discriminator="kind")]  # noqa: UP007 - of the registry
    """A task of the registry, chosen by its `kind`."""


class TableConfig(StageConfig):
    """Patients, slides and targets of a cohort."""

    table: Annotated[Path, TABLE]
    """CSV, TSV (zipped or not), Excel or Parquet with patients, slides and the task's columns, as downloaded: known
    tables are recognised (`task.table`), and columns found by the names of the field. File endings of slide ids
    (`.svs`) do not matter."""
    slide_table: Annotated[Path | None, TABLE] = None
    """Second table with the patient of each slide, for a `table` of patients: GDC's sample sheet, STAMP's slide table,
    or any with columns of both."""
    stores: Annotated[Path | None, STORES] = None
    """Folder of stores. Where no table has slides, the patients of the stores are found by TCGA barcode. For splits,
    slides are also compared with the table, and identical slides are found by their hash."""
    site_column: str | None = None
    """Column with the hospital of each patient; default: characters 6 and 7 of TCGA barcodes."""
    task: AnyTask = SubtypeTask()
    """Prediction task."""


class SplitsConfig(TableConfig):
    """A cohort, its splits, and the audit findings to accept."""

    splits: Annotated[Path, SPLITS]
    """Folder of `splits_<k>.csv` with columns train, val and test, of slide ids or case ids; or of `train_<k>.csv`,
    `val_<k>.csv`, `test_<k>.csv`; or a table with a column `fold` or `split`, or JSON with lists of ids."""
    folds: tuple[NonNegativeInt, ...] | None = None
    """Folds to use; default: all."""
    move_leaks_to: Part | None = None
    """Part that receives the patients who are in several parts of a fold. Without it, such folds are refused."""
    accept: tuple[str, ...] = ()
    """Audit findings to accept, as `category` or `category:name`, for example `missing-slides` or `leak:TCGA-A1-A0SB`.
    Every report repeats them."""


class AuditConfig(SplitsConfig):
    """Checks of a cohort's splits: patients in two parts, missing slides, duplicates, shared sites, counts."""

    out: Path | None = None
    """Folder for `audit.json` and, with `move_leaks_to`, the corrected splits."""


class SplitConfig(TableConfig):
    """Table -> splits: by patient, stratified by class or event, in three parts."""

    out: Path
    """Folder for `splits_<k>.csv`, of slide ids."""
    folds: int = Field(default=5, ge=3)
    """Number of folds; each patient is in test in one fold, in val in another, and in train in the rest."""
    keep_sites_together: bool = False
    """Keep the patients of a site in one part, so that test patients come from hospitals unseen in training."""
    seed: NonNegativeInt = 0
    """Seed of the random assignment."""
    overwrite: bool = False
    """Start again: first remove the splits of an earlier run in `out`."""
