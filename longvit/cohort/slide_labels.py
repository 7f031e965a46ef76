"""Tables next to the stores: the patient of each slide, and the labels of the probe. Neither is used for training."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from longvit.cohort.columns import LABEL, find_column
from longvit.cohort.tables import barcodes, read_table
from longvit.config import ProbeConfig
from preprocessing.errors import CohortError, few


@dataclass(frozen=True)
class LabelledSlides:
    """Slides with labels: store, patient and label of each slide."""

    stores: list[Path]
    patients: list[str]
    labels: list[str]


def map_slides_to_patients(table: Path | None, stores: Mapping[str, Path]) -> dict[str, str]:
    """Return the patient of each slide id that has one: from the table, or else from its TCGA barcode.

    Raises:
        CohortError: The table or a column does not exist, or the table does not name a slide that has a store.
    """
    if table is None:
        return barcodes(stores)
    rows = _with_stores(read_table(table), stores)
    strangers = sorted(set(stores) - set(rows["slide_id"]))
    if strangers:
        raise CohortError(
            f"{len(strangers)} of {len(stores)} stores have no patient in the table, the first: {strangers[0]}",
            where=table,
            fix="add a row for each slide, or move stores of other cohorts elsewhere",
        )
    return dict(zip(rows["slide_id"], rows["case_id"], strict=True))


def read_labelled(config: ProbeConfig, stores: Mapping[str, Path]) -> LabelledSlides | None:
    """Return the slides that have a label and a store; None if no table is configured.

    Raises:
        CohortError: The table or a column does not exist, there is only one class, or a class has fewer patients
            than the probe has folds.
    """
    if config.table is None:
        return None
    rows = read_table(config.table)
    column = config.label_column or find_column(rows.columns, LABEL)
    if column not in rows:
        fix = "name the right column in probe.label_column"
        what = f"the table has no column {column or f'of labels, as {LABEL[0]}'}"
        raise CohortError(what, where=f"{config.table}, columns: {few(list(rows.columns), 12)}", fix=fix)
    rows = _with_stores(rows, stores).dropna(subset=column)
    patients = Counter(rows.drop_duplicates("case_id")[column])
    rare = sorted(label for label, count in patients.items() if count < config.folds)
    if len(patients) < 2 or rare:
        what = f"class {rare[0]} has {patients[rare[0]]}" if rare else f"there are {len(patients)} classes"
        raise CohortError(
            f"too few labelled patients with a store to probe with {config.folds} folds: {what}",
            where=f"{config.table}, column {column}",
            fix="tile more of its slides, lower probe.folds, or leave rare classes out of the table",
        )
    paths = [stores[slide] for slide in rows["slide_id"]]
    return LabelledSlides(paths, rows["case_id"].tolist(), rows[column].tolist())


def _with_stores(rows: pd.DataFrame, stores: Mapping[str, Path]) -> pd.DataFrame:
    """Return the rows of slides that have a store, sorted by slide."""
    rows = rows[rows["slide_id"].isin(list(stores))]
    return rows.drop_duplicates("slide_id").sort_values("slide_id", ignore_index=True)
