import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from longvit.evaluation.ipcw import (
    SurvivalRows,
    brier,
    censoring,
    dynamic_auc,
    evaluation_times,
    mean_auc,
    over_time,
    uno_c_index,
)

law = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def cohort(seed: int, n: int = 40, strata: int = 1, *, tied: bool = True) -> SurvivalRows:
    """Few distinct times and risks, so that both tie; curves that mean nothing."""
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 30, n).astype(float), rng.random(n) < 0.6
    time[:3], event[:3] = (1, 15, 31), (True, True, False)
    if not tied:
        time += np.arange(n) / 100
    risk = rng.integers(0, 12, n).astype(float)
    times = evaluation_times(time, event)
    return SurvivalRows(time, event, risk, np.arange(n) % strata, times, rng.random((n, len(times))))


def once(rows: SurvivalRows) -> np.ndarray:
    return np.ones((1, len(rows.time)))


@law
@given(seed=seeds)
def test_one_stratum_of_weights_one_and_untied_times_is_what_scikit_survival_computes(seed):
    rows = cohort(seed, tied=False)  # of tied times it weighs events by the share after them: see test_oracles.py
    observed, known = Surv.from_arrays(rows.event, rows.time), censoring(rows, once(rows))
    expected = CensoringDistributionEstimator().fit(observed).predict_proba(rows.time)
    assert known.at_patients[0][rows.event] == pytest.approx(expected[rows.event])
    uno = concordance_index_ipcw(observed, observed, rows.risk, tau=rows.times[-1])[0]
    assert uno_c_index(rows, once(rows), known)[0] == pytest.approx(uno)
    auc = cumulative_dynamic_auc(observed, observed, rows.risk, rows.times)[0]
    assert dynamic_auc(rows, once(rows), known)[0] == pytest.approx(auc)
    scores = brier_score(observed, observed, rows.model, rows.times)[1]
    assert brier(rows, rows.model, once(rows), known)[0] == pytest.approx(scores)


@law
@given(seed=seeds)
def test_weighted_patients_are_repeated_patients(seed):
    rows = cohort(seed, strata=2)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(rows.time))).astype(float)
    weights[0, :3] = 1
    again = rows.take(np.repeat(np.arange(len(rows.time)), weights[0].astype(int)))
    known, known_again = censoring(rows, weights), censoring(again, once(again))
    for score in (uno_c_index, dynamic_auc, lambda one, *rest: brier(one, one.model, *rest)):
        expected = score(again, once(again), known_again)
        assert score(rows, weights, known) == pytest.approx(expected, nan_ok=True)


def hand() -> SurvivalRows:
    """Deaths at 1 and 3, censored at 2 and 4: of the three left at 2 one is censored, so G(2) = G(3) = 2/3."""
    arrays = np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, False])
    model = np.array([[0.2], [0.7], [0.5], [0.9]])
    return SurvivalRows(*arrays, np.array([4.0, 9.0, 1.0, 2.0]), np.zeros(4), np.array([3.5]), model)


def test_censoring_of_a_hand_computed_case():
    known = censoring(hand(), np.ones((1, 4)))
    assert known.at_patients[0] == pytest.approx([1, 1, 2 / 3, 2 / 3])
    assert known.at_times[0] == pytest.approx([2 / 3])


def test_unos_c_index_of_a_hand_computed_case():
    # 1 before 2, 3, 4: two of three agree, weight 1. 3 before 4: disagrees, weight (3/2)^2.
    rows = hand()
    assert uno_c_index(rows, once(rows), censoring(rows, once(rows)))[0] == pytest.approx(2 / (3 + 9 / 4))


def test_auc_at_a_time_of_a_hand_computed_case():
    # cases 1 (weight 1) and 3 (weight 3/2) against the control 4: risks 4 and 1 against 2
    rows = hand()
    assert dynamic_auc(rows, once(rows), censoring(rows, once(rows)))[0, 0] == pytest.approx(1 / (1 + 3 / 2))


def test_brier_score_of_a_hand_computed_case():
    rows = hand()
    found = brier(rows, rows.model, once(rows), censoring(rows, once(rows)))[0, 0]
    assert found == pytest.approx((0.2**2 + 0.5**2 * 3 / 2 + 0.1**2 * 3 / 2) / 4)


def test_times_end_while_somebody_is_still_observed():
    time = np.array([2.0, 5.0, 8.0, 60.0, 60.0, 60.0])
    times = evaluation_times(time, np.array([True, True, True, False, False, False]))
    assert (times[0], times[-1]) == pytest.approx((2.6, 8.0))
    assert evaluation_times(time, np.zeros(6, dtype=bool)).size == 0
    assert evaluation_times(np.ones(4), np.ones(4, dtype=bool)).size == 0


def test_strata_do_not_see_each_other():
    rows = cohort(3, strata=2)
    shifted = SurvivalRows(rows.time, rows.event, rows.risk + 100 * rows.stratum, rows.stratum, rows.times)
    known = censoring(rows, once(rows))
    for score in (uno_c_index, dynamic_auc):
        assert score(shifted, once(rows), known) == pytest.approx(score(rows, once(rows), known))


def test_means_over_time():
    assert over_time(np.array([[0.0, 1.0, 1.0]]), np.array([0.0, 2.0, 3.0]))[0] == pytest.approx(2 / 3)
    assert mean_auc(np.array([[0.4, np.nan, 0.8], [np.nan] * 3]))[0] == pytest.approx(0.6)
    assert np.isnan(mean_auc(np.array([[np.nan]])))[0]
