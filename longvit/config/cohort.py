"""Settings of tables, classes, audits and splits: what `split`, `audit` and `finetune` ask of a cohort."""

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
"""LongViT's three subtyping tasks (arXiv 2312.03558) on the tables of HIPT (mahmoodlab/HIPT, 10 folds each)."""


class SubtypeTask(StageConfig):
    """Which class is this slide? Cross-entropy."""

    kind: Literal["subtype"] = "subtype"
    """Subtyping."""
    preset: Literal["tcga_brca", "tcga_lung", "tcga_kidney"] | None = None
    """The classes and ignored labels of one of the paper's tasks; what is set beside it wins."""
    label_column: str = "oncotree_code"
    """Column of the table with the label."""
    ignore: tuple[str, ...] = ()
    """Labels whose rows are left out, as the table writes them."""
    label_map: dict[str, str] = Field(default_factory=dict)
    """Label of the table -> class, to merge or rename labels; those not named stay as they are."""
    classes: tuple[str, ...] | None = None
    """The classes, in order; patients of others are left out. Default: all in the table, sorted."""
    label_smoothing: Share = 0.0
    """Label smoothing of the cross-entropy."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weighs every training patient by the inverse of the share of the class, so that rare classes count as
    much as common ones."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's: not yet validated
        if not isinstance(values, dict) or values.get("preset") not in list(PRESETS):
            return values
        return values | {name: values.get(name) or given for name, given in PRESETS[values["preset"]].items()}


class SurvivalTask(StageConfig):
    """Who has the event earlier? Columns of the table that say when, and whether it was seen."""

    kind: Literal["cox", "nll"]
    """The loss."""
    time_column: str = "survival_months"
    """Column of the table with the time to the event or the last visit."""
    time_unit: TimeUnit = "months"
    """Unit of that column, which reports and figures name. Times that no follow-up in this unit has are refused."""
    censorship_column: str = "censorship"
    """Column that is 1 where the event was NOT observed, as in the published TCGA tables."""
    event_column: str | None = None
    """Column that is 1 where the event WAS observed, read instead of the censorship column."""


class CoxTask(SurvivalTask):
    """Who has the event earlier? Cox partial likelihood (Cox 1972) with Efron's ties."""

    kind: Literal["cox"] = "cox"
    """Survival, by hazards compared between patients."""
    min_events: PositiveInt = 2
    """Observed events that every window of patients holds at least."""


class NllTask(SurvivalTask):
    """Who has the event earlier? Discrete-time likelihood (Zadeh and Schmid 2020), as LongViT, MCAT and PORPOISE do."""

    kind: Literal["nll"] = "nll"
    """Survival, by the hazard in each of a few bins of time."""
    bins: int = Field(default=4, ge=2)
    """Bins of time; each holds as many of the training patients whose event was observed."""
    alpha: Share = 0.0
    """How far the loss leans towards patients whose event was observed: 0 counts everybody alike, 1 only these."""


Task = SubtypeTask | CoxTask | NllTask


class TableConfig(StageConfig):
    """Which patients, slides and targets there are."""

    table: Annotated[Path, TABLE]
    """CSV (zipped or not) or Excel with `case_id`, `slide_id` and the task's columns; `.svs` endings do not matter.
    STAMP's names `PATIENT` and `FILENAME` are understood."""
    slide_table: Annotated[Path | None, TABLE] = None
    """A second table with the patient of each slide (`PATIENT`, `FILENAME`), where `table` has a row per patient."""
    site_column: str | None = None
    """Column with the hospital a patient comes from; default: characters 6 and 7 of TCGA barcodes."""
    task: Annotated[Task, Field(discriminator="kind")] = SubtypeTask()
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
