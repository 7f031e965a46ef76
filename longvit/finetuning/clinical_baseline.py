"""Baseline `clinical`: Cox regression on age, sex and stage by lifelines, without any slide."""

from pathlib import Path

import pandas as pd
from lifelines import CoxPHFitter

from longvit.cohort.clinical import ClinicalCovariates, read_clinical
from longvit.config import FinetuneConfig
from longvit.finetuning.experiment import Experiment, TrainingJob
from longvit.finetuning.predict_sequences import truth
from longvit.formats.predictions_csv import sequence_columns
from preprocessing.errors import CohortError, ConfigError

PENALTY = 0.01
"""Ridge penalty on standardised covariates; it keeps a fit finite if a covariate orders all events."""


def clinical_covariates(experiment: Experiment) -> ClinicalCovariates:
    """Read age, sex and stage of the cohort's patients, from the `clinical` table or the cohort's own table.

    Raises:
        ConfigError: The task is not survival.
        CohortError: The table has neither age, sex nor stage, or none of the patients.
    """
    config = experiment.config
    where = _table(config)
    if "time" not in experiment.cohort.targets:
        fix = "leave clinical out of baselines"
        raise ConfigError("clinical is a baseline for survival only", where="baselines: clinical", fix=fix)
    found = read_clinical(where)
    cases = [case for case in experiment.cohort.slides if case in found.table.index]
    if not cases:
        fix = "use the same patient names in both tables"
        raise CohortError("no patient of the cohort is in the clinical table", where=where, fix=fix)
    return ClinicalCovariates(found.table.reindex(list(experiment.cohort.slides)), found.notes)


def predict_clinical(experiment: Experiment, job: TrainingJob) -> list[dict]:
    """Fit on the training patients, predict val and test, and return one row per slide; a patient's rows share a risk.

    The fit is by the Cox partial likelihood with Efron's ties and a ridge penalty of `PENALTY`. A missing value becomes
    the median of the fold's training patients. A covariate that is the same for all of them is left out. The risk is
    the log partial hazard.
    """
    table, train = clinical_covariates(experiment).table, list(job.fold.train)
    filled = table.fillna(table.loc[train].median())
    names = [name for name in filled.columns if filled.loc[train, name].nunique() > 1]
    risk = pd.Series(0.0, index=filled.index)
    if names:
        rows = filled.loc[train, names].join(experiment.targets(job))
        fit = CoxPHFitter(penalizer=PENALTY).fit(rows, "time", "event")
        held_out = [*job.fold.val, *job.fold.test]
        risk[held_out] = fit.predict_log_partial_hazard(filled.loc[held_out, names]).to_numpy()
    return [
        sequence_columns(case, [slide])
        | {"fold": job.fold.index, "split": part}
        | truth(experiment.cohort.targets, case, experiment.config.task)
        | {"risk": float(risk[case])}
        for part in ("val", "test")
        for case in job.fold.parts[part]
        for slide in experiment.cohort.slides[case]
    ]


def clinical_notes(experiment: Experiment) -> list[str]:
    """Return sentences that describe this baseline and count the missing values, for the report."""
    found = clinical_covariates(experiment)
    names = ", ".join(name[0].lower() + name[1:] for name in found.table.columns)
    notes = [
        f"Cox regression on {names} ({_table(experiment.config).name}), no slide: lifelines, ridge {PENALTY}, "
        "fitted on the training patients of each fold."
    ]
    for name, count in found.table.isna().sum().items():
        if count:
            of = f"{count} of {len(found.table)} patients"
            notes.append(f"{name}: {of} have no value and get the median of the fold's training patients.")
    return [*notes, *found.notes]


def _table(config: FinetuneConfig) -> Path:
    return config.clinical or config.table
