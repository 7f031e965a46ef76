"""Settings of tables, classes, audits and splits: the cohort settings of `split`, `audit` and `finetune`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from longvit.config.required import SPLITS, STORES, TABLE
from preprocessing.config import Share, StageConfig

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
TimeUnit = Literal["days", "months", "years"]

PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "tcga_brca": {
        "classes": ("IDC", "ILC"),
        "ignore": ("MDLC", "PD", "ACBC", "IMMC", "BRCNOS", "BRCA", "SPC", "MBC", "MPT"),
    },
    "tcga_lung": {"classes": ("LUAD", "LUSC")},
    "tcga_kidney": {"classes": ("CCRCC", "PRCC", "CHRCC")},
}
"""Classes and ignored labels of LongViT's three subtyping tasks (arXiv 2312.03558), on the tables of HIPT
(mahmoodlab/HIPT, 10 folds each)."""


class SubtypeTask(StageConfig):
    """Subtyping: the class of a slide. Loss: cross-entropy."""

    kind: Literal["subtype"] = "subtype"
    """Subtyping."""
    preset: Literal["tcga_brca", "tcga_lung", "tcga_kidney"] | None = None
    """Preset with the classes and ignored labels of one of the paper's tasks; classes and labels set next to it take
    precedence."""
    label_column: str = "oncotree_code"
    """Column of the table with the label."""
    ignore: tuple[str, ...] = ()
    """Labels whose rows are left out, spelled as in the table."""
    label_map: dict[str, str] = Field(default_factory=dict)
    """Label of the table -> class, to merge or rename labels; labels not named here stay as they are."""
    classes: tuple[str, ...] | None = None
    """Classes, in order; patients of other classes are left out. Default: all classes in the table, sorted."""
    label_smoothing: Share = 0.0
    """Label smoothing of the cross-entropy."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weights each training patient by the inverse of the share of the class, so that rare classes count as
    much as common ones."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's: not yet validated
        if not isinstance(values, dict) or values.get("preset") not in list(PRESETS):
            return values
        return values | {name: values.get(name) or given for name, given in PRESETS[values["preset"]].items()}


class SurvivalTask(StageConfig):
    """Survival: the columns of the table with the time of each patient, and whether the event was observed."""

    kind: Literal["cox", "nll"]
    """Loss."""
    time_column: str = "survival_months"
    """Column of the table with the time to the event or the last visit."""
    time_unit: TimeUnit = "months"
    """Unit of that column, shown in reports and figures. Times that are implausible in this unit are refused."""
    censorship_column: str = "censorship"
    """Column that is 1 if the event was NOT observed, as in the published TCGA tables."""
    event_column: str | None = None
    """Column that is 1 if the event WAS observed; read instead of the censorship column."""


class CoxTask(SurvivalTask):
    """Survival by the Cox partial likelihood (Cox 1972), ties as by Efron."""

    kind: Literal["cox"] = "cox"
    """Survival, by comparing hazards between patients."""
    min_events: PositiveInt = 2
    """Smallest number of observed events in every window of patients."""


class NllTask(SurvivalTask):
    """Survival by the discrete-time likelihood (Zadeh and Schmid 2020), as in LongViT, MCAT and PORPOISE."""

    kind: Literal["nll"] = "nll"
    """Survival, by the hazard in each of a few time bins."""
    bins: int = Field(default=4, ge=2)
    """Number of time bins; each contains equally many of the training patients whose event was observed."""
    alpha: Share = 0.0
    """Emphasis of the loss on patients whose event was observed: 0 counts all patients alike, 1 counts only these."""


Task = SubtypeTask | CoxTask | NllTask


class TableConfig(StageConfig):
    """Patients, slides and targets of a cohort."""

    table: Annotated[Path, TABLE]
    """CSV (zipped or not) or Excel with `case_id`, `slide_id` and the task's columns. File endings of slide ids
    (`.svs`) do not matter. STAMP's column names `PATIENT` and `FILENAME` are accepted."""
    slide_table: Annotated[Path | None, TABLE] = None
    """Second table with the patient of each slide (`PATIENT`, `FILENAME`), for a `table` with one row per patient."""
    site_column: str | None = None
    """Column with the hospital of each patient; default: characters 6 and 7 of TCGA barcodes."""
    task: Annotated[Task, Field(discriminator="kind")] = SubtypeTask()
    """Prediction task."""


class SplitsConfig(TableConfig):
    """A cohort, its splits, and the audit findings to accept."""

    stores: Annotated[Path | None, STORES] = None
    """Folder of stores: compared with the table, and searched for identical slides by their hash."""
    splits: Annotated[Path, SPLITS]
    """Folder of `splits_<k>.csv` with columns train, val and test, of slide ids or case ids."""
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
