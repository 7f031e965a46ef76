"""Law: numbers of tied times and of repeated hold-outs are those of R (`oracles/README.md`)."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longvit.cohort.clinical import ClinicalCovariates
from longvit.evaluation.cox import RISK_NAME, cox_regression
from longvit.evaluation.folds import evaluate_folds
from longvit.evaluation.ipcw import SurvivalRows, brier, censoring, dynamic_auc
from longvit.evaluation.predictions import read_predictions
from longvit.evaluation.survival import survival_metrics

ORACLES = Path(__file__).parent / "oracles"


def expected(script: str) -> dict[tuple[str, str], float]:
    table = pd.read_csv(ORACLES / f"{script}.expected.csv", keep_default_na=False, float_precision="round_trip")
    return {(row.number, str(row.at)): float(row.value) for row in table.itertuples()}


def years() -> pd.DataFrame:
    return pd.read_csv(ORACLES / "years.csv", float_precision="round_trip")


@pytest.fixture
def repeated_csv(tmp_path) -> Path:
    table = pd.read_csv(ORACLES / "repeated.csv")
    table.assign(slide_id=table["patient_id"], split="test").to_csv(tmp_path / "predictions.csv", index=False)
    return tmp_path / "predictions.csv"


def test_auc_and_brier_score_of_tied_times_are_those_of_risk_regression():
    table, of_r = years(), expected("ipcw")
    times = np.array([1, 2, 3.5, 5, 6])
    curves = np.exp(-0.1 * np.exp(table["risk"].to_numpy())[:, None] * times)
    time, event, risk = (table[name].to_numpy() for name in ("time", "event", "risk"))
    rows = SurvivalRows(time.astype(float), event == 1, risk, np.zeros(90), times, curves)
    once = np.ones((1, 90))
    known = censoring(rows, once)
    for name, found in (("auc", dynamic_auc(rows, once, known)), ("brier", brier(rows, curves, once, known))):
        assert found[0] == pytest.approx([of_r[name, f"{t:g}"] for t in times], rel=1e-13), name


def test_integrated_brier_scores_and_unos_index_of_tied_times_are_those_of_r():
    table, of_r = years(), expected("ipcw")
    found = survival_metrics(table["time"], table["event"], table["risk"], stratum=table["fold"])
    assert found["ibs_km"] == pytest.approx(of_r["ibs_km", ""], rel=1e-13)
    assert found["ibs"] == pytest.approx(of_r["ibs", ""], rel=1e-8)  # R's and scikit-survival's fits stop at 1e-9
    assert found["uno_c_index"] == pytest.approx(of_r["uno_c_index_within_folds", ""], rel=1e-13)
    together = survival_metrics(table["time"], table["event"], table["risk"])
    assert together["uno_c_index"] == pytest.approx(of_r["uno_c_index", ""], rel=1e-13)


def regression(table: pd.DataFrame) -> dict:
    names = table["patient_id"]
    covariates = table[["age", "female", "stage"]].set_axis(names).assign(age=lambda t: t["age"] / 10)
    return cox_regression(
        table.drop(columns=["age", "female", "stage"]), ClinicalCovariates(covariates.astype(float), ())
    )


def test_hazard_ratios_and_the_test_of_proportional_hazards_of_tied_times_are_those_of_r():
    of_r = expected("cox")
    for entry in regression(years())["covariates"]:
        name = "risk" if entry["name"] == RISK_NAME else entry["name"]
        for kind in ("alone", "adjusted"):
            for number, value in entry[kind].items():
                assert value == pytest.approx(of_r[f"{kind}_{number}", name], rel=1e-9), (kind, number, name)


def test_names_and_order_of_patients_do_not_move_the_test_of_proportional_hazards():
    table = years()
    shuffled = table.sample(frac=1, random_state=0)
    renamed = table.assign(patient_id=np.random.default_rng(0).permutation(table["patient_id"]))
    first = regression(table)["covariates"]
    for other in (shuffled, renamed):
        for one, again in zip(first, regression(other)["covariates"], strict=True):
            assert again["adjusted"] == pytest.approx(one["adjusted"], rel=1e-9)


def test_patients_of_several_hold_outs_count_once_as_in_r(repeated_csv):
    of_r, metrics = expected("repeated"), evaluate_folds(read_predictions(repeated_csv)).metrics
    assert metrics["pooled"]["logrank_p"]["value"] == pytest.approx(of_r["logrank_p", ""])
    for group in metrics["risk_groups"]:
        for key, number in (("n", "n"), ("n_events", "n_events"), ("median_time", "median")):
            assert group[key] == of_r[number, group["name"]]
    (only,) = metrics["cox"]["covariates"]
    assert only["alone"]["hazard_ratio"] == pytest.approx(of_r["hazard_ratio", ""], rel=1e-9)
    assert only["alone"]["ph_p"] == pytest.approx(of_r["ph_p", ""], rel=1e-9)
    assert sum(group["n"] for group in metrics["risk_groups"]) == metrics["n_patients"] == metrics["n_slides"] == 39


@pytest.mark.slow
@pytest.mark.parametrize("script", ["ipcw", "cox", "repeated"])
def test_stored_numbers_are_what_the_scripts_print(script):
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed")
    library = "survival" if script != "ipcw" else "riskRegression"
    if subprocess.run(["Rscript", "-e", f"library({library})"], capture_output=True).returncode:
        pytest.skip(f"R has no library {library}")
    command = ["Rscript", str(ORACLES / f"{script}.R"), str(ORACLES)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    stored = (ORACLES / f"{script}.expected.csv").read_text().splitlines()
    assert [line.rsplit(",", 1)[0] for line in printed] == [line.rsplit(",", 1)[0] for line in stored]
    values = [[float(line.rsplit(",", 1)[1]) for line in lines[1:]] for lines in (printed, stored)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
