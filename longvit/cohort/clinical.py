"""Clinical table -> covariates of a Cox regression, one row per patient."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from longvit.cohort.columns import PATIENT, find_column
from longvit.cohort.tables import name_rows, read_strings
from longvit.config.required import CLINICAL
from longvit.formats.csv_rows import exact_numbers
from preprocessing.errors import CohortError

AGE = ("age", "age_at_index", "age_at_diagnosis", "age_at_initial_pathologic_diagnosis")
SEX = ("is_female", "sex", "gender")
STAGE = ("stage", "ajcc_pathologic_stage", "ajcc_pathologic_tumor_stage", "pathologic_stage", "tumor_stage")
STAGES = {"I": 1.0, "II": 2.0, "III": 3.0, "IV": 4.0}
FEMALE = {"female": 1.0, "f": 1.0, "1": 1.0, "1.0": 1.0, "male": 0.0, "m": 0.0, "0": 0.0, "0.0": 0.0}
MAX_YEARS = 130
"""Largest age in years; a greater number is an age in days, as GDC's `age_at_diagnosis` is."""
AGE_NAME, SEX_NAME, STAGE_NAME = "Age, per 10 years", "Female", "Stage, per step I to IV"


@dataclass(frozen=True)
class ClinicalCovariates:
    """Covariates of patients.

    Attributes:
        table: Index `patient_id`; one column per covariate that was found, NaN if a patient has no value.
        notes: Sentences about covariates that were left out.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]


def read_clinical(path: Path) -> ClinicalCovariates:
    """Read age, sex and stage from a table like TCGA's (CSV, zipped or not, or Excel); other columns are not read.

    Age is in years (GDC's days are recognised). Sex is female or male, F or M, or `is_female` 1 or 0. The stage is a
    Roman number with or without `Stage` and a letter (`Stage IIIA`). Several rows of one patient count as one row.

    Raises:
        CohortError: The table, a column of patients or every covariate is missing, or rows of a patient differ.
    """
    wanted = (*PATIENT, *AGE, *SEX, *STAGE)
    table = name_rows(read_strings(path, CLINICAL, wanted=wanted), path, {"case_id"})
    found, notes = {}, []
    for name, columns, read in ((AGE_NAME, AGE, _age), (SEX_NAME, SEX, _female), (STAGE_NAME, STAGE, _stage)):
        column = find_column(table.columns, columns)
        if column is None:
            notes.append(f"{name.split(',')[0]} is left out: the clinical table has none of {', '.join(columns)}.")
        else:
            found[name] = read(table[column].str.strip())
    if not found:
        raise CohortError(
            "there is no column of age, sex or stage", where=path, fix=f"name columns {AGE[0]}, {SEX[1]}, {STAGE[0]}"
        )
    values = pd.DataFrame(found).groupby(table["case_id"])
    differing = values.nunique().gt(1).any(axis=1)
    if differing.any():
        what = f"rows of a patient differ: {', '.join(differing.index[differing][:5])}"
        raise CohortError(what, where=path, fix="give each patient one age, sex and stage")
    return ClinicalCovariates(values.first().rename_axis("patient_id"), tuple(notes))


def _age(text: pd.Series) -> pd.Series:
    years = exact_numbers(text)
    return (years / 365.25 if years.max() > MAX_YEARS else years) / 10


def _female(text: pd.Series) -> pd.Series:
    return text.str.lower().map(FEMALE).astype(float)


def _stage(text: pd.Series) -> pd.Series:
    numeral = text.str.upper().str.extract(re.compile(r"^(?:STAGE\s*)?(IV|I{1,3})[ABC]?\d?$"))[0]
    return numeral.map(STAGES).astype(float)
