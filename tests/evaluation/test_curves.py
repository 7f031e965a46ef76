import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter

from longvit.evaluation import survival_metrics
from longvit.evaluation.curves import cross_fold_curves, standardised

TIMES = np.array([0.1, 0.5, 1.0, 2.0])


def cohort(n: int = 240, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    hazard = rng.normal(size=n)
    death, left = rng.exponential(np.exp(-hazard)), rng.exponential(3.0, n)
    fold = np.arange(n) % 3
    survival = {"time": np.minimum(death, left), "event": death <= left, "risk": hazard}
    return survival | {"fold": fold, "patient": np.arange(n).astype(str)}


def test_curves_agree_with_lifelines_fitted_on_the_other_folds():
    rows = cohort()
    here = rows["fold"] == 1
    times = np.sort(rows["time"][~here & rows["event"]])[[5, 30, 90]]  # between steps lifelines interpolates
    model, reference = cross_fold_curves(**rows, times=times)
    z = standardised(rows["risk"], rows["fold"])
    table = pd.DataFrame({"time": rows["time"], "event": rows["event"], "z": z})
    cox = CoxPHFitter(baseline_estimation_method="breslow").fit(table[~here], "time", "event")
    expected = cox.predict_survival_function(table[here], times=times).T.to_numpy()
    assert model[here] == pytest.approx(expected, abs=2e-3)
    kaplan_meier = KaplanMeierFitter().fit(table.loc[~here, "time"], table.loc[~here, "event"])
    assert reference[here][0] == pytest.approx(kaplan_meier.survival_function_at_times(times).to_numpy())


def test_no_patient_shapes_its_own_curve():
    rows = cohort()
    before = cross_fold_curves(**rows, times=TIMES)[0]
    inside = rows["fold"] == 2
    changed = rows | {"time": np.where(inside, rows["time"] + 9, rows["time"]), "event": rows["event"] & ~inside}
    after = cross_fold_curves(**changed, times=TIMES)[0]
    assert after[inside] == pytest.approx(before[inside])
    assert np.abs(after[~inside] - before[~inside]).max() > 0.01


def test_a_patient_whom_two_folds_hold_out_is_left_out_of_both_fits():
    rows = cohort()
    rows["patient"][1] = rows["patient"][0]  # of folds 1 and 0
    before = cross_fold_curves(**rows, times=TIMES)[0]
    later = rows["time"].copy()
    later[1] += 50
    after = cross_fold_curves(**(rows | {"time": later}), times=TIMES)[0]
    assert after[0] == pytest.approx(before[0])


def test_another_scale_of_one_folds_risks_changes_nothing():
    rows = cohort()
    rescaled = rows | {"risk": rows["risk"] * (1 + rows["fold"]) - 40 * rows["fold"]}
    assert cross_fold_curves(**rescaled, times=TIMES)[0] == pytest.approx(cross_fold_curves(**rows, times=TIMES)[0])


def test_one_fold_has_no_curves():
    rows = cohort()
    assert cross_fold_curves(**(rows | {"fold": np.zeros(240, dtype=int)}), times=TIMES) is None


def test_a_risk_that_knows_is_below_kaplan_meier_and_noise_is_not():
    rows = cohort()
    score = lambda risk: survival_metrics(rows["time"], rows["event"], risk, stratum=rows["fold"])
    good, noise = score(rows["risk"]), score(np.random.default_rng(1).normal(size=240))
    assert good["ibs"] < 0.9 * good["ibs_km"]
    assert noise["ibs"] > 0.98 * noise["ibs_km"]
    assert good["ibs_km"] == pytest.approx(noise["ibs_km"])


def test_equal_risks_are_standardised_to_nothing():
    assert not standardised(np.full(7, 0.1), np.zeros(7)).any()  # their std is 1e-17
    assert standardised(np.array([3.0, 3.0, 1.0, 5.0]), np.array([0, 0, 1, 1])).tolist() == [0, 0, -1, 1]


@pytest.mark.parametrize("value", [0.1, -2.2516, 7.0])
def test_the_curves_of_a_constant_risk_are_kaplan_meiers(value):
    rows = cohort()
    model, reference = cross_fold_curves(**(rows | {"risk": np.full(240, value)}), times=TIMES)
    assert (model == reference).all()
    one_fold = np.where(rows["fold"] == 0, value, rows["risk"])
    model, reference = cross_fold_curves(**(rows | {"risk": one_fold}), times=TIMES)
    assert (model == reference).all(axis=1).tolist() == (rows["fold"] == 0).tolist()
