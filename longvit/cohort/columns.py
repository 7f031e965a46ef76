"""Names that the field gives to columns of patients, slides and labels."""

import re
from collections.abc import Iterable, Sequence

PATIENT = (
    *("case_submitter_id", "cases.submitter_id", "bcr_patient_barcode", "case_id", "patient_id", "patient"),
    *("submitter_id", "sample", "sample_id", "sampleID"),
)
"""Names of columns with the patient, by preference: GDC's `case_id` is a UUID, `case_submitter_id` a barcode."""
SAMPLE = ("sample", "sample_id", "sampleid")
"""Names of columns with the barcode of a sample, whose first twelve characters are the patient's."""
SLIDE = ("slide_id", "slide", "slide_name", "filename", "file_name", "image_id", "wsi")
"""Names of columns with the slide, by preference."""
LABEL = ("oncotree_code", "label", "subtype", "isup_grade")
"""Names of columns with the class of a patient, by preference."""


def plain(name: str) -> str:
    """Return a name in lower case, with its words joined by underscores.

    >>> plain("_PATIENT"), plain("cases.submitter_id"), plain("Overall Survival (Months)")
    ('patient', 'cases_submitter_id', 'overall_survival_months')
    """
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def find_column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """Return the column that has the first of these names, as `plain` compares them; None without such a column."""
    written = {plain(column): column for column in reversed(list(columns))}
    return next((written[plain(name)] for name in names if plain(name) in written), None)
