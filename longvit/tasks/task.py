"""Base classes of tasks: the target of a patient is a class, or the time of an event."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import Field, model_validator

from preprocessing.config import StageConfig

Array = Any
"""A numpy array. numpy, pandas and torch are not imported here, so that `longvit --help` does not wait for them."""
Table = Any
"""A pandas DataFrame."""
Tensor = Any
"""A torch tensor."""
Classes = tuple[str, ...]
"""Classes in the order of the probabilities; empty for survival."""
Statistics = Mapping[str, tuple[float, ...]]
"""Numbers by name that a loss needs from the training patients; stored in a model's file."""
TimeUnit = Literal["days", "months", "years"]
TableName = Literal["cdr", "gdc", "cbioportal", "xena", "clam", "stamp", "panda", "mcat"]
Endpoint = Literal["OS", "DSS", "DFI", "PFI"]
MISSING_WORDS = (
    "'--",
    "--",
    "[Not Available]",
    "[Not Applicable]",
    "[Not Evaluated]",
    "[Unknown]",
    "[Discrepancy]",
    "#N/A",
)
"""Words of GDC, TCGA-CDR and Excel for missing values; a class may have any other name, `None` and `NA` too."""

PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "tcga_brca": {
        "classes": ("IDC", "ILC"),
        "ignore": ("MDLC", "PD", "ACBC", "IMMC", "BRCNOS", "BRCA", "SPC", "MBC", "MPT"),
    },
    "tcga_lung": {"classes": ("LUAD", "LUSC")},
    "tcga_kidney": {"classes": ("CCRCC", "PRCC", "CHRCC")},
}
"""Classes and ignored labels of LongViT's three subtyping tasks (arXiv 2312.03558), for the tables of HIPT
(mahmoodlab/HIPT, 10 folds each)."""


class TargetProblem(NamedTuple):
    """Reason for a constant or undefined loss of some patients, to follow the words "fold k", and its fix."""

    what: str
    fix: str


@runtime_checkable
class Target(Protocol):
    """Target of a patient: the index of the class, or the time and whether the event was observed."""

    @property
    def label(self) -> int:
        """Return the index of the class."""
        ...

    @property
    def time(self) -> float:
        """Return the time of the event, or of the last visit."""
        ...

    @property
    def event(self) -> bool:
        """Return whether the event was observed."""
        ...


class Task(StageConfig, ABC):
    """Settings of a prediction task, with its loss, its outputs and its checks."""

    targets: ClassVar[tuple[str, ...]]
    """Columns of the table of targets: `label`, or `time` and `event`."""
    stratum: ClassVar[str]
    """Target column whose values are shared evenly among the windows of an epoch."""
    quantity: ClassVar[str]
    """Name of `score` in explanations."""

    table: TableName | None = None
    """Published table whose columns the table has: TCGA-CDR, GDC's clinical.tsv, cBioPortal, UCSC Xena, CLAM, STAMP,
    PANDA, or MCAT and HIPT. Default: recognised by its columns."""
    patient_column: str | None = None
    """Column with the patient. Default: the first of case_submitter_id, cases.submitter_id, bcr_patient_barcode,
    case_id, patient_id, patient, submitter_id and sample (a barcode, cut to 12 characters), in any case and with any
    separators."""
    slide_column: str | None = None
    """Column with the slide. Default: the first of slide_id, slide, slide_name, filename, file_name, image_id, wsi."""
    patient: Literal["table", "slide"] = "table"
    """`slide` makes every slide a patient of its own, for tables that do not name patients."""
    missing: Literal["refuse", "leave-out"] = "refuse"
    """`leave-out` leaves out the patients who have a slide but no label, or no time and status; they are counted and
    named in the audit and the report."""
    missing_words: tuple[str, ...] = MISSING_WORDS
    """Words of the tables for missing values, in any case; an empty cell is always missing."""

    @property
    @abstractmethod
    def table_columns(self) -> list[str]:
        """Columns of the user's table, in the order of `targets`; empty if the task does not name them."""

    @property
    def source_columns(self) -> list[str]:
        """All columns that the targets are read from, if they are known."""
        return self.table_columns

    @property
    def unit(self) -> TimeUnit | None:
        """Unit of the time to an event; None if the target is not a time."""
        return None

    def all_classes(self, found: Sequence[str]) -> Classes:
        """Return the classes, in order, of a table with the labels `found`; empty if the target is not a class."""
        return ()

    @abstractmethod
    def outputs(self, classes: Classes) -> int:
        """Return the number O of the head's outputs."""

    @abstractmethod
    def loss(self, outputs_NO: Tensor, patients: Sequence[Target], statistics: Statistics) -> Tensor:
        """Return the loss of a window of patients; outputs are float32 or wider."""

    @abstractmethod
    def predictions(self, output_O: Tensor, classes: Classes) -> dict[str, float]:
        """Return one slide's output as columns of predictions.csv: `p_<class>` of each class, or `risk`."""

    def score(self, outputs_NO: Tensor, index: int) -> Tensor:
        """Return a differentiable number that is larger if the class with this index, or the event, is likelier."""
        return outputs_NO[:, index]

    def fit(self, targets: Table, classes: Classes) -> Statistics:
        """Return the loss's statistics of the targets of the training patients, one row per patient."""
        return {}

    def sizes(self, classes: Classes) -> dict[str, int]:
        """Return the length of each entry that `fit` may return."""
        return {}

    def accepts(self, classes: Classes, statistics: Statistics) -> bool:
        """Return whether classes and statistics, read from a file, belong to this task."""
        sizes = self.sizes(classes)
        of_this_task = all(len(values) == sizes.get(name) for name, values in statistics.items())
        return of_this_task and bool(classes) == ("label" in self.targets) and len(set(classes)) == len(classes)

    def problem(self, targets: Table, part: str, classes: Classes) -> TargetProblem | None:
        """Return the reason why the loss of these patients is useless, or None.

        Args:
            targets: Targets of the patients, one row per patient.
            part: `train`, or `val` if it selects the epoch.
            classes: All classes.
        """
        return None

    def most_windows(self, strata: Array) -> int | None:
        """Return the number of windows into which patients of these strata may be dealt, or None for any number."""
        return None


class LabelTask(Task):
    """Prediction of a patient's class, named in one column of the table."""

    targets: ClassVar[tuple[str, ...]] = ("label",)
    stratum: ClassVar[str] = "label"
    quantity: ClassVar[str] = "logit"

    kind: str
    """Kind of task."""
    preset: Literal["tcga_brca", "tcga_lung", "tcga_kidney"] | None = None
    """Preset with the classes and ignored labels of one of the paper's tasks; classes and labels set next to it take
    precedence."""
    label_column: str | None = None
    """Column of the table with the label. Default: the column of a recognised table (`type` in TCGA-CDR), or else the
    first of oncotree_code, label, subtype, isup_grade."""
    ignore: tuple[str, ...] = ()
    """Labels whose rows are left out, spelled as in the table."""
    label_map: dict[str, str] = Field(default_factory=dict)
    """Label of the table -> class, to merge or rename labels; labels not named here stay as they are."""
    classes: Classes | None = None
    """Classes, in order; patients of other classes are left out. Default: all classes in the table, sorted."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's: not yet validated
        if not isinstance(values, dict) or values.get("preset") not in list(PRESETS):
            return values
        return values | {name: values.get(name) or given for name, given in PRESETS[values["preset"]].items()}

    @property
    def table_columns(self) -> list[str]:
        """Column with the label, if it is known."""
        return [self.label_column] if self.label_column else []

    def all_classes(self, found: Sequence[str]) -> Classes:
        """Return the classes of the settings, or else all labels."""
        return self.classes or tuple(found)

    def problem(self, targets: Table, part: str, classes: Classes) -> TargetProblem | None:
        """Return the classes without a training patient, as a problem."""
        absent = sorted(set(classes) - set(targets["label"])) if part == "train" else []
        if not absent:
            return None
        fix = "use splits stratified by class, or leave the fold out with folds"
        return TargetProblem(f"has no training patient of class {', '.join(absent)}", fix)


class SurvivalTask(Task):
    """Prediction of survival, from the table's columns with the time and the status (event or censored)."""

    targets: ClassVar[tuple[str, ...]] = ("time", "event")
    stratum: ClassVar[str] = "event"
    quantity: ClassVar[str] = "risk"

    kind: str
    """Kind of task."""
    endpoint: Endpoint | None = None
    """Endpoint of a recognised table: overall or disease-specific survival, disease-free or progression-free interval.
    Default: OS."""
    time_column: str | None = None
    """Column of the table with the time to the event or the last visit. Default: the endpoint's."""
    event_time_column: str | None = None
    """Column with the time of the event, if the table has this in another column than the time of the last visit."""
    time_unit: TimeUnit | None = None
    """Unit of the time column, shown in reports and figures. Default: the recognised table's, or the unit in the name
    of the column. Times that are implausible in this unit are refused."""
    censorship_column: str | None = None
    """Column that is 1 if the event was NOT observed, as in the published TCGA tables."""
    event_column: str | None = None
    """Column that is 1 if the event WAS observed, or has words like Dead and Alive; read instead of the censorship
    column."""

    @property
    def table_columns(self) -> list[str]:
        """Columns with the time and the status, if they are known."""
        return [name for name in (self.time_column, self.event_column or self.censorship_column) if name]

    @property
    def source_columns(self) -> list[str]:
        """Columns with the time and the status, and with the time of the event if it is another one."""
        return [*self.table_columns, *([self.event_time_column] if self.event_time_column else [])]

    @model_validator(mode="after")
    def _columns_given_once(self) -> "SurvivalTask":
        if self.endpoint and self.time_column and (self.event_column or self.censorship_column):
            raise ValueError("give endpoint, or the columns of time and status, not both")
        return self

    @property
    def unit(self) -> TimeUnit | None:
        """Unit of the time column, if it is known."""
        return self.time_unit
