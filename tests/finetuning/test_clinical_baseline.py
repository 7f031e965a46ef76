from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from longvit.cohort.patients import read_cohort
from longvit.cohort.splits import Fold
from longvit.config import CoxTask, FinetuneConfig, PixelInput
from longvit.finetuning.clinical_baseline import clinical_notes, predict_clinical
from longvit.finetuning.experiment import Experiment, TrainingJob


def study_of(folder: Path, table: pd.DataFrame) -> Experiment:
    table.to_csv(folder / "table.csv", index=False)
    config = FinetuneConfig(
        table=folder / "table.csv", splits=folder, stores=folder, out=folder / "run", task=CoxTask(), shuffles=1
    )
    cases = tuple(table["case_id"])
    fold = Fold(0, cases[:60], cases[60:70], cases[70:])
    cohort = read_cohort(config.table, config.task)
    return Experiment(config.model_copy(update={"task": cohort.task}), cohort, [fold], {}, PixelInput())


@pytest.fixture
def table() -> pd.DataFrame:
    """80 patients whose hazard doubles with every ten years of age."""
    rng = np.random.default_rng(0)
    age, sex = rng.uniform(40, 80, 80).round(1), rng.integers(0, 2, 80)
    time = rng.exponential(40 * 2 ** (-(age - 60) / 10)).round(2) + 0.01
    return pd.DataFrame(
        {
            "case_id": [f"P{i:02d}" for i in range(80)],
            "slide_id": [f"P{i:02d}-1" for i in range(80)],
            "survival_months": time,
            "censorship": rng.random(80) < 0.3,
            "age": age,
            "is_female": sex,
        }
    ).astype({"censorship": int})


def risks(rows: list[dict]) -> pd.Series:
    return pd.Series({row["patient_id"]: row["risk"] for row in rows})


def test_the_risk_is_that_of_a_cox_regression_on_the_training_patients(tmp_path, table):
    experiment = study_of(tmp_path, table)
    found = risks(predict_clinical(experiment, experiment.jobs("clinical")[0]))
    rows = table.set_index("case_id")
    design = rows[["age", "is_female"]]
    train = rows.index[:60]
    observed = Surv.from_arrays(rows.loc[train, "censorship"] == 0, rows.loc[train, "survival_months"])
    fit = CoxPHSurvivalAnalysis(ties="efron").fit(design.loc[train], observed)
    expected = pd.Series(fit.predict(design.loc[found.index]), found.index)
    assert np.corrcoef(found, expected)[0, 1] > 0.999  # ours has a small ridge
    assert (found - found.mean()).abs().max() == pytest.approx((expected - expected.mean()).abs().max(), rel=0.05)
    assert list(found.index) == list(rows.index[60:])
    assert {row["time_unit"] for row in predict_clinical(experiment, experiment.jobs("clinical")[0])} == {"months"}


def test_held_out_patients_do_not_influence_the_fit(tmp_path, table):
    (tmp_path / "other").mkdir()
    lied = table.assign(survival_months=table["survival_months"].where(table.index < 60, 1.0))
    lied["age"] = table["age"].where(table.index < 70)  # and nobody of test has an age
    found = [
        risks(predict_clinical(s, s.jobs("clinical")[0]))
        for s in (study_of(tmp_path, table), study_of(tmp_path / "other", lied))
    ]
    pd.testing.assert_series_equal(found[0].iloc[:10], found[1].iloc[:10])


def test_a_missing_value_is_the_median_of_the_training_patients_and_is_said(tmp_path, table):
    table.loc[[3, 75], "age"] = np.nan
    experiment = study_of(tmp_path, table)
    found = risks(predict_clinical(experiment, experiment.jobs("clinical")[0]))
    (tmp_path / "filled").mkdir()
    filled = study_of(tmp_path / "filled", table.assign(age=table["age"].fillna(table["age"][:60].median())))
    pd.testing.assert_series_equal(found, risks(predict_clinical(filled, filled.jobs("clinical")[0])))
    notes = clinical_notes(experiment)
    assert (
        "Age, per 10 years: 2 of 80 patients have no value and get the median of the fold's training patients." in notes
    )
    assert any(note.startswith("Stage is left out") for note in notes)


def test_what_is_the_same_for_all_training_patients_is_left_out(tmp_path, table):
    experiment = study_of(tmp_path, table.assign(age=60, is_female=(table.index >= 60).astype(int)))
    assert (risks(predict_clinical(experiment, TrainingJob(experiment.folds[0], None, "clinical"))) == 0).all()
