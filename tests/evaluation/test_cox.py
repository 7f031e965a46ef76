from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from longvit.cohort.clinical import AGE_NAME, SEX_NAME, STAGE_NAME, ClinicalCovariates, read_clinical
from longvit.evaluation.cox import RISK_NAME, cox_regression
from longvit.evaluation.curves import standardised
from preprocessing.errors import CohortError

TCGA = Path(__file__).parents[2] / ".." / "shared" / "data" / "tcga" / "survival" / "dataset_csv"


def rows(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    risk = rng.normal(size=n)
    table = pd.DataFrame({"patient_id": [f"P{i}" for i in range(n)], "fold": np.arange(n) % 2, "risk": risk})
    return table.assign(time=rng.exponential(np.exp(-risk)), event=(rng.random(n) < 0.8).astype(float))


def clinical(table: pd.DataFrame) -> ClinicalCovariates:
    rng = np.random.default_rng(1)
    n = len(table)
    columns = {AGE_NAME: rng.normal(6, 1, n), SEX_NAME: rng.integers(0, 2, n) * 1.0}
    return ClinicalCovariates(pd.DataFrame(columns, index=pd.Index(table["patient_id"], name="patient_id")), ())


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "clinical.csv"
    path.write_text(text)
    return path


def test_hazard_ratios_agree_with_scikit_survival():
    table = rows()
    beside = clinical(table)
    found = cox_regression(table, beside)
    z = standardised(table["risk"].to_numpy(), table["fold"].to_numpy())
    design = np.column_stack([z, beside.table.to_numpy()])
    observed = Surv.from_arrays(table["event"] == 1, table["time"])
    expected = np.exp(CoxPHSurvivalAnalysis(ties="efron").fit(design, observed).coef_)
    assert [one["adjusted"]["hazard_ratio"] for one in found["covariates"]] == pytest.approx(expected, rel=1e-6)
    alone = np.exp(CoxPHSurvivalAnalysis(ties="efron").fit(z[:, None], observed).coef_[0])
    assert found["covariates"][0]["alone"]["hazard_ratio"] == pytest.approx(alone, rel=1e-6)
    assert found["covariates"][0]["adjusted"]["p"] < 1e-6
    assert (found["n"], found["n_events"]) == (200, int(table["event"].sum()))


def test_the_risk_alone_needs_no_clinical_table():
    (only,) = cox_regression(rows(), None)["covariates"]
    assert only["name"] == RISK_NAME
    assert only["adjusted"] is None
    assert only["alone"]["low"] < only["alone"]["hazard_ratio"] < only["alone"]["high"]


def test_a_hazard_ratio_of_a_hand_computed_case():
    # Partial likelihood of x = 1, -1, 1, -1 dying in this order, b = log hazard ratio of a step of 1; u = exp(2 b):
    # u/(2u+2) * 1/(u+2) * u/(u+1): the derivative is 0 where 2 - 2 * 2u/(2u+2) - u/(u+2) = 0, so u = (1 + sqrt 17)/2
    table = pd.DataFrame({"patient_id": list("ABCD"), "fold": 0, "time": [1, 2, 3, 4], "event": 1.0})
    found = cox_regression(table.assign(risk=[1.0, -1.0, 1.0, -1.0]), None)
    assert found["covariates"][0]["alone"]["hazard_ratio"] ** 2 == pytest.approx((1 + 17**0.5) / 2, rel=1e-6)


def test_a_fit_without_a_maximum_is_a_dash_and_is_said():
    table = rows(30).assign(event=1.0)
    found = cox_regression(table.assign(fold=0, risk=-table["time"].rank()), None)
    assert found["covariates"][0]["alone"] is None
    assert any("does not converge" in note for note in found["notes"])


def test_patients_without_a_value_are_left_out_and_said():
    table = rows()
    beside = clinical(table)
    beside.table.iloc[:7, 0] = np.nan
    found = cox_regression(table, beside)
    assert found["n"] == 193
    assert "7 of 200 patients lack a value and are left out." in found["notes"]


def test_a_covariate_that_is_the_same_for_all_is_left_out_and_said():
    table = rows()
    beside = clinical(table)
    beside.table[SEX_NAME] = 1.0
    found = cox_regression(table, beside)
    assert [one["name"] for one in found["covariates"]] == [RISK_NAME, AGE_NAME]
    assert f"{SEX_NAME} is left out: it is the same for all." in found["notes"]


def test_tcga_columns_are_read(tmp_path):
    text = "case_id,gender,age_at_diagnosis,ajcc_pathologic_stage\nA,FEMALE,21915,Stage IIIB\nB,male,,[Not Available]\n"
    table = read_clinical(written(tmp_path, text)).table
    assert table.loc["A"].tolist() == pytest.approx([6.0, 1.0, 3.0])
    assert table.loc["B", SEX_NAME] == 0
    assert table.loc["B", [AGE_NAME, STAGE_NAME]].isna().all()


def test_absent_columns_are_left_out_and_said(tmp_path):
    found = read_clinical(written(tmp_path, "patient_id,age\nA,50\nA,50\nB,60\n"))
    assert list(found.table[AGE_NAME]) == [5.0, 6.0]
    assert [note.split(" is left out")[0] for note in found.notes] == ["Female", "Stage"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("who,age\nA,50\n", "the table has no column case_id"),
        ("patient_id,colour\nA,red\n", "no column of age, sex or stage"),
        ("patient_id,age\nA,50\nA,51\n", "rows of a patient differ: A"),
        ("", "the clinical table is empty"),
    ],
)
def test_a_table_that_says_nothing_is_refused(tmp_path, text, says):
    with pytest.raises(CohortError, match=says):
        read_clinical(written(tmp_path, text))


@pytest.mark.skipif(not TCGA.exists(), reason="the published tables lie in shared/, which is absent")
def test_the_published_breast_table_is_read():
    table = read_clinical(TCGA / "tcga_brca_all_clean.slim.csv").table
    assert len(table) > 900
    assert table[AGE_NAME].between(2, 10).all()
    assert set(table[SEX_NAME].dropna()) == {0.0, 1.0}


@pytest.mark.parametrize("value", [0.1, -2.2516])
def test_a_constant_risk_has_no_hazard_ratio(value):
    found = cox_regression(rows().assign(risk=value), None)
    assert found["covariates"] == []
    assert f"{RISK_NAME} is left out: it is the same for all." in found["notes"]


def test_covariates_that_say_the_same_have_no_adjusted_hazard_ratio():
    table = rows()
    z = standardised(table["risk"].to_numpy(), table["fold"].to_numpy())
    twice = ClinicalCovariates(pd.DataFrame({AGE_NAME: z}, index=pd.Index(table["patient_id"], name="patient_id")), ())
    found = cox_regression(table, twice)
    assert [entry["adjusted"] for entry in found["covariates"]] == [None, None]
    assert all(entry["alone"] for entry in found["covariates"])


def test_ages_are_read_to_the_last_bit(tmp_path):
    text = "78.18873094883070962"
    table = read_clinical(written(tmp_path, f"patient_id,age\nA,{text}\n")).table
    assert table.loc["A", AGE_NAME] == float(text) / 10
