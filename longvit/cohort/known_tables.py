"""Published tables -> their columns of labels, times and status, and the unit of times."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from longvit.cohort.columns import LABEL, PATIENT, SLIDE, find_column, plain
from longvit.config import Endpoint, LabelTask, SurvivalTask, TableName, Task, TimeUnit
from preprocessing.errors import CohortError, few

UNITS: dict[str, TimeUnit] = {
    **dict.fromkeys(("day", "days"), "days"),
    **dict.fromkeys(("month", "months"), "months"),
    **dict.fromkeys(("year", "years"), "years"),
}
"""Word in the name of a column -> unit of its times."""


class Columns(NamedTuple):
    """Columns of an endpoint.

    Attributes:
        time: Time to the event or the last visit.
        status: Whether the event was observed; or was NOT observed, if `censored`.
        unit: Unit of the times.
        event_time: Time of the event, if the table has it in another column than the time of the last visit.
        censored: Whether `status` is 1 for patients without the event.
    """

    time: str
    status: str
    unit: TimeUnit
    event_time: str | None = None
    censored: bool = False


class KnownTable(NamedTuple):
    """Layout of a published table.

    Attributes:
        name: Value of `task.table`.
        title: Name in messages.
        signature: Columns by which the table is recognised: it has all of them.
        endpoints: Columns of each endpoint.
        label: Column of the class.
        slides_are_patients: Whether the table does not name patients.
    """

    name: TableName
    title: str
    signature: tuple[str, ...]
    endpoints: Mapping[Endpoint, Columns] = {}
    label: str | None = None
    slides_are_patients: bool = False


ENDPOINTS: tuple[Endpoint, ...] = ("OS", "DSS", "DFI", "PFI")
_DAYS: dict[Endpoint, Columns] = {name: Columns(f"{name}.time", name, "days") for name in ENDPOINTS}
_FREE: dict[Endpoint, str] = {"OS": "OS", "DSS": "DSS", "DFI": "DFS", "PFI": "PFS"}
_MONTHS: dict[Endpoint, Columns] = {
    name: Columns(f"{theirs}_MONTHS", f"{theirs}_STATUS", "months") for name, theirs in _FREE.items()
}
_SHOWN: dict[Endpoint, Columns] = {
    "OS": Columns("Overall Survival (Months)", "Overall Survival Status", "months"),
    "DSS": Columns("Months of disease-specific survival", "Disease-specific Survival status", "months"),
    "DFI": Columns("Disease Free (Months)", "Disease Free Status", "months"),
    "PFI": Columns("Progress Free Survival (Months)", "Progression Free Status", "months"),
}
_GDC_OLD = Columns("days_to_last_follow_up", "vital_status", "days", "days_to_death")
_GDC_NEW = Columns("diagnoses.days_to_last_follow_up", "demographic.vital_status", "days", "demographic.days_to_death")
_GDC_NEW_SIGNATURE = ("cases.submitter_id", "demographic.vital_status")
_MCAT: dict[Endpoint, Columns] = {
    "OS": Columns("survival_months", "censorship", "months", censored=True),
    "DSS": Columns("survival_months_dss", "censorship_dss", "months", censored=True),
}
TABLES = (
    KnownTable("cdr", "TCGA-CDR", ("bcr_patient_barcode", "OS.time"), _DAYS, "type"),
    KnownTable("xena", "UCSC Xena's survival table", ("sample", "OS.time"), _DAYS),
    KnownTable("gdc", "GDC's clinical table", ("case_submitter_id", "vital_status"), {"OS": _GDC_OLD}, "project_id"),
    KnownTable("gdc", "GDC's clinical table", _GDC_NEW_SIGNATURE, {"OS": _GDC_NEW}, "project.project_id"),
    KnownTable("cbioportal", "cBioPortal's table of patients", ("PATIENT_ID", "OS_MONTHS", "OS_STATUS"), _MONTHS),
    KnownTable(
        "cbioportal",
        "cBioPortal's table of patients",
        ("Patient ID", "Overall Survival (Months)"),
        _SHOWN,
        "Oncotree Code",
    ),
    KnownTable("cbioportal", "cBioPortal's table of samples", ("PATIENT_ID", "SAMPLE_ID"), {}, "ONCOTREE_CODE"),
    KnownTable("mcat", "MCAT's and HIPT's table", ("case_id", "survival_months"), _MCAT, "oncotree_code"),
    KnownTable("panda", "PANDA's table", ("image_id", "isup_grade"), {}, "isup_grade", slides_are_patients=True),
    KnownTable("panda", "PANDA's table", ("slide_id", "data_provider"), {}, slides_are_patients=True),
    KnownTable("clam", "CLAM's table", ("case_id", "slide_id", "label"), {}, "label"),
    KnownTable("stamp", "STAMP's table", ("PATIENT",)),
)
"""Layouts, by preference. Sources: Liu et al. 2018 (Cell 173, table S1), docs.gdc.cancer.gov, docs.cbioportal.org,
xenabrowser.net, and the code of MCAT, HIPT, CLAM, STAMP and the PANDA challenge."""


def known_names(task: Task) -> list[str]:
    """Return all names of columns that a table of this task may have, as its publishers write them."""
    signatures = [name for table in TABLES for name in table.signature]
    columns = [columns[:2] for table in TABLES for columns in table.endpoints.values()]
    return [*task.table_columns, *PATIENT, *SLIDE, *LABEL, *signatures, *(name for pair in columns for name in pair)]


def recognise(columns: Sequence[str], wanted: TableName | None, where: Path) -> KnownTable | None:
    """Return the known table with these columns; None if there is none.

    Raises:
        CohortError: The table that the settings name has other columns.
    """
    lacking = {}
    for table in TABLES:
        if wanted in {None, table.name}:
            missing = [name for name in table.signature if not find_column(columns, [name])]
            if not missing:
                return table
            lacking[table.title] = missing
    if wanted is None:
        return None
    title, missing = min(lacking.items(), key=lambda item: len(item[1]))
    fix = "remove task.table, and name the columns (task.patient_column, task.label_column, ...)"
    raise CohortError(f"this is not {title}: it has no column {' nor '.join(missing)}", where=where, fix=fix)


def lacks_patients(columns: Sequence[str]) -> bool:
    """Return whether these are the columns of a known table that does not name patients."""
    known = any(
        table.slides_are_patients and all(find_column(columns, [n]) for n in table.signature) for table in TABLES
    )
    return known and not find_column(columns, PATIENT)


def fit_task(task: Task, columns: Sequence[str], where: Path) -> tuple[Task, str | None]:
    """Return a task with the settings that the table decides filled in, and a sentence about them.

    Args:
        task: Settings; columns that they name are kept.
        columns: Columns of the table.
        where: The table, for errors.

    Returns:
        The task with its columns, the unit of times, and whether slides are patients; and a sentence about a recognised
        table, or None for another table and for MCAT's, whose names are this project's.

    Raises:
        CohortError: The table has other columns than the table that the settings name, or has no columns of the target;
            or the unit of times is unknown.
    """
    table = recognise(columns, task.table, where)
    update: dict[str, object] = {}
    if not task.patient_column and lacks_patients(columns):
        update["patient"] = "slide"
    fitted = task.model_copy(update=update | _FITTED[task.targets](task, table, columns, where))
    if table is None or table.name == "mcat":
        return fitted, None
    said = [f"columns {' and '.join(fitted.table_columns)}"]
    said += [f"times in {fitted.unit}"] if fitted.unit else []
    said += ["every slide a patient"] if fitted.patient == "slide" else []
    return fitted, f"is read as {table.title}: {', '.join(said)}"


def _label(task: LabelTask, table: KnownTable | None, columns: Sequence[str], where: Path) -> dict[str, object]:
    """Return the column of the label."""
    names = (*([table.label] if table and table.label else []), *LABEL)
    found = task.label_column or find_column(columns, names)
    return {"label_column": found or _refuse_absent("label", "label_column", columns, where)}


def _survival(task: SurvivalTask, table: KnownTable | None, columns: Sequence[str], where: Path) -> dict[str, object]:
    """Return the columns of time and status, and the unit."""
    endpoints = {name: of for name, of in (table.endpoints if table else {}).items() if find_column(columns, of[:1])}
    if task.endpoint and task.endpoint not in endpoints:
        has = f"has the endpoints {', '.join(endpoints)}" if endpoints else "has no known endpoints"
        fix = "choose one of these, or name task.time_column and task.event_column"
        raise CohortError(f"the table has no endpoint {task.endpoint}; it {has}", where=where, fix=fix)
    named = [of for of in endpoints.values() if task.time_column and plain(of.time) == plain(task.time_column)]
    known = named[0] if named else endpoints.get(task.endpoint or "OS")
    time = task.time_column or (known and find_column(columns, [known.time]))
    time = time or find_column(columns, ["survival_months"]) or _refuse_absent("time", "time_column", columns, where)
    update: dict[str, object] = {"time_column": time, "endpoint": None}  # which the columns now say
    of_time = known if known and plain(known.time) == plain(time) else None
    if not task.event_column and not task.censorship_column:
        status = find_column(columns, [of_time.status]) if of_time else None
        censored = of_time.censored if status and of_time else True
        status = status or find_column(columns, ["censorship"])
        status = status or _refuse_absent("status", "event_column", columns, where)
        update["censorship_column" if censored else "event_column"] = status
    if of_time and of_time.event_time and not task.event_time_column:
        update["event_time_column"] = find_column(columns, [of_time.event_time])
    unit = task.time_unit or (of_time.unit if of_time else _unit_in(time))
    if unit is None:
        fix = "set --task.time-unit to days, months or years"
        raise CohortError(f"the unit of column {time} is not known", where=where, fix=fix)
    return update | {"time_unit": unit}


def _unit_in(column: str) -> TimeUnit | None:
    """Return the unit that the name of a column says; times like `OS.time` are TCGA's, in days."""
    name = plain(column)
    if name in {plain(of.time) for of in _DAYS.values()}:
        return "days"
    return next((UNITS[word] for word in name.split("_") if word in UNITS), None)


def _refuse_absent(what: str, setting: str, columns: Sequence[str], where: Path) -> NoReturn:
    raise CohortError(
        f"the table has no known column of the {what}",
        where=f"{where}, columns: {few(list(columns), 12)}",
        fix=f"name it with task.{setting}",
    )


_FITTED = {LabelTask.targets: _label, SurvivalTask.targets: _survival}
"""Search for the columns of each kind of target, by their columns."""
