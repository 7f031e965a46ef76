"""Rows of a clinical table -> each row's label, or its time and whether the event was observed."""

from pathlib import Path

import pandas as pd

from longvit.config import LabelTask, SurvivalTask
from longvit.formats.csv_rows import exact_numbers
from preprocessing.errors import CohortError, few

EVENT = {"true", "yes", "dead", "deceased", "died", "death", "event", "recurred", "progressed"}
"""Words of a status column for an observed event, in lower case; 1 and `1:DECEASED` mean the same."""
CENSORED = {"false", "no", "alive", "living", "censored"}
"""Words of a status column for a patient without the event; 0 and `0:LIVING` mean the same."""
UNKNOWN = {"na", "n/a", "nan", "null", "none", "unknown", "not reported", "not available", "not applicable"}
"""Words that are missing values in columns of times and status; a class may have these names."""


def read_labels(table: pd.DataFrame, task: LabelTask, path: Path) -> pd.DataFrame:
    """Return the column `label`; NaN where the table has none. Rows whose label is ignored are left out.

    Raises:
        CohortError: `task.label_map` renames labels that the table does not contain.
    """
    labels = table[str(task.label_column)]
    unknown = sorted(set(task.label_map) - set(labels))
    if unknown:
        raise CohortError(
            f"task.label_map renames labels that the table does not contain: {few(unknown)}",
            where=f"{path}, column {task.label_column}, labels {few(sorted(labels.dropna().unique()), 20)}",
            fix="spell labels as in the table",
        )
    return labels.replace(task.label_map)[~labels.isin(task.ignore)].to_frame("label")


def read_times(table: pd.DataFrame, task: SurvivalTask, path: Path) -> pd.DataFrame:
    """Return the columns `time` and `event` (1 = observed); both are NaN where one is missing.

    The time is that of the event where the event was observed and the table has it in a column of its own, as GDC's
    `days_to_death`.

    Raises:
        CohortError: A time is not a number of at least 0, or a status is none of the known words. Times below 0 count
            as missing if patients without a time are left out.
    """
    time_column, status_column = task.table_columns
    event, bad = _events(table[status_column], censored=task.event_column is None)
    cells = table[time_column]
    if task.event_time_column:
        cells = cells.where(event != 1, table[task.event_time_column])
    cells = cells.where(~cells.str.casefold().isin(UNKNOWN))
    time = exact_numbers(cells)
    if task.missing == "leave-out":
        time, cells = time.where(~(time < 0)), cells.where(~(time < 0))
    bad |= cells.notna() & ~(time >= 0)
    if bad.any():
        line = bad.index[bad][0]
        meaning = "1 = event observed, or Dead and Alive" if task.event_column else "1 = event not observed"
        raise CohortError(
            f"{time_column} must be a number of at least 0 and {status_column} 0 or 1 ({meaning}), "
            f"found {few([cells[line]])} and {few([table[status_column][line]])}",
            where=f"{path}, line {line}",
            fix="name the right columns: task.time_column, and task.event_column or task.censorship_column"
            if bad.all()
            else "correct the row, or its value to an empty cell with --task.missing leave-out",
        )
    targets = pd.DataFrame({"time": time, "event": event})
    return targets.where(targets.notna().all(axis=1))


def _events(cells: pd.Series, *, censored: bool) -> tuple[pd.Series, pd.Series]:
    """Return 1 for observed events, 0 for censored patients and NaN for missing values; and unknown words.

    Words that name the state of a patient are not read in a column of censorship, where they would be turned round.
    """
    words = cells.str.casefold()
    words = words.where(~words.isin(UNKNOWN))
    digits = words.str.extract(r"^([01])(?:\.0*)?(?::.*)?$")[0].astype(float)
    event = digits.mask(digits.isna() & words.isin(("true",) if censored else EVENT), 1.0)
    event = event.mask(event.isna() & words.isin(("false",) if censored else CENSORED), 0.0)
    return 1 - event if censored else event, words.notna() & event.isna()
