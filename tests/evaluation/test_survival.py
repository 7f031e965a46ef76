import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index

from longvit.evaluation import survival_metrics
from longvit.evaluation.survival import SURVIVAL_METRICS, high_risk
from preprocessing.errors import CohortError

law = settings(max_examples=30, deadline=None)


@st.composite
def cohorts(draw):
    """Distinct times, at least one event that somebody outlives, risks with ties."""
    n = draw(st.integers(2, 25))
    time = np.array(draw(st.permutations(range(n))), dtype=float)
    event = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    event[time.argmin()] = True
    risk = np.array(draw(st.lists(st.integers(-6, 6), min_size=n, max_size=n)), dtype=float)
    return time, event, risk


def c_index(time, event, risk, stratum=None):
    return survival_metrics(time, event, risk, stratum=stratum)["c_index"]


def test_c_index_of_a_hand_computed_case():
    # pairs: 2 before 5, 7, 9 agree; 5 before 7 and before 9 do not
    metrics = survival_metrics(time=[2, 5, 7, 9], event=[1, 1, 0, 1], risk=[0.9, 0.1, 0.4, 0.2])
    assert metrics["c_index"] == pytest.approx(3 / 5)
    assert (metrics["n"], metrics["n_events"]) == (4, 3)


def test_equal_risks_count_one_half_and_censored_patients_compare_only_as_survivors():
    assert c_index([1, 2], [1, 0], [3, 3]) == 0.5
    assert c_index([1, 2, 3], [0, 1, 0], [0, 5, 1]) == 1.0


@law
@given(cohorts())
def test_agrees_with_lifelines_which_wants_the_sign_reversed(cohort):
    time, event, risk = cohort
    assert c_index(time, event, risk) == pytest.approx(concordance_index(time, -risk, event))


@law
@given(cohort=cohorts(), scale=st.floats(0.5, 3), shift=st.floats(-5, 5))
def test_c_index_is_invariant_to_monotone_maps(cohort, scale, shift):
    time, event, risk = cohort
    before = c_index(time, event, risk)
    assert c_index(time, event, scale * risk + shift) == pytest.approx(before)
    assert c_index(time, event, np.exp(risk)) == pytest.approx(before)


@law
@given(cohorts())
def test_reversed_risks_give_the_complement(cohort):
    time, event, risk = cohort
    assert c_index(time, event, -risk) == pytest.approx(1 - c_index(time, event, risk))


def test_higher_risk_means_an_earlier_event():
    rng = np.random.default_rng(0)
    log_hazard = rng.normal(size=200)
    death, censoring = rng.exponential(np.exp(-log_hazard)), rng.exponential(2.0, size=200)
    metrics = survival_metrics(np.minimum(death, censoring), death <= censoring, log_hazard)
    assert metrics["c_index"] > 0.6
    assert metrics["logrank_p"] < 0.001


def test_strata_are_compared_within_and_not_across():
    # Each stratum alone is in perfect order; across strata every pair disagrees: the second model's risks are lower.
    time, event = [4, 5, 1, 2], [1, 1, 1, 1]
    risk, fold = [10, 9, 2, 1], [0, 0, 1, 1]
    assert c_index(time, event, risk, fold) == 1.0
    assert c_index(time, event, risk) == pytest.approx(2 / 6)


def test_strata_weigh_by_their_comparable_pairs():
    # first stratum 1 of 3 pairs, second 1 of 1
    time, event = [1, 2, 3, 1, 2], [1, 1, 1, 1, 1]
    assert c_index(time, event, [2, 1, 3, 9, 8], [0, 0, 0, 1, 1]) == pytest.approx(2 / 4)


@law
@given(cohort=cohorts(), shift=st.integers(-50, 50))
def test_a_models_unknown_constant_does_not_move_the_stratified_index(cohort, shift):
    time, event, risk = (np.concatenate([part, part]) for part in cohort)
    fold = np.repeat([0, 1], len(time) // 2)
    assert c_index(time, event, risk + shift * fold, fold) == pytest.approx(c_index(time, event, risk, fold))


def test_a_stratum_without_comparable_pairs_adds_nothing():
    assert c_index([1, 2, 5, 5], [1, 0, 1, 1], [2, 1, 0, 0], [0, 0, 1, 1]) == 1.0
    assert c_index([1, 2, 5, 6], [1, 0, 0, 0], [2, 1, 0, 0], [0, 0, 1, 1]) == 1.0


def test_the_median_split_is_made_within_strata():
    assert high_risk([1, 2, 3, 10, 20, 30], [0, 0, 0, 1, 1, 1]).tolist() == [False, False, True] * 2


def test_there_is_no_log_rank_test_of_one_group():
    assert survival_metrics([1, 2, 3], [1, 1, 0], [7, 7, 7])["logrank_p"] is None


@pytest.mark.parametrize(
    ("time", "event", "risk", "says"),
    [
        ([1, 2], [0, 0], [1, 2], r"no patient has an event \(n = 2\)"),
        ([1, 2], [0, 1], [1, 2], "no two patients can be compared"),
        ([3, 3], [1, 1], [1, 2], "no two patients can be compared"),
        ([1, 2], [1], [1, 2], "shapes differ"),
        ([1, float("nan")], [1, 0], [1, 2], "not finite"),
        ([1, 2], [1, 0], [1, float("inf")], "not finite"),
        ([1, 2], [1, 2], [1, 2], "not 0 or 1"),
    ],
)
def test_what_has_no_c_index_is_refused(time, event, risk, says):
    with pytest.raises(CohortError, match=says):
        survival_metrics(time, event, risk)


def test_every_number_of_a_cohort_with_two_strata_exists():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=120)
    metrics = survival_metrics(rng.exponential(np.exp(-risk)), rng.random(120) < 0.7, risk, stratum=np.arange(120) % 2)
    assert set(metrics) == {*SURVIVAL_METRICS, "n", "n_events"}
    assert all(0 <= metrics[name] <= 1 for name in SURVIVAL_METRICS)
    assert metrics["td_auc"] > metrics["c_index"] > 0.6


def test_one_stratum_has_no_brier_score_since_its_curves_would_be_fitted_on_itself():
    metrics = survival_metrics([2, 5, 7, 9], [1, 1, 0, 1], [0.9, 0.1, 0.4, 0.2])
    assert metrics["ibs"] is None
    assert metrics["ibs_km"] is None
    assert metrics["td_auc"] is not None


def test_folds_of_one_patient_have_no_pairs_and_say_why():
    with pytest.raises(CohortError, match="each fold holds out one, and two models' risks have no common scale"):
        survival_metrics([1, 2, 3], [1, 1, 0], [3, 2, 1], stratum=[0, 1, 2])
    assert c_index([1, 2, 3], [1, 1, 0], [3, 2, 1], [0, 0, 1]) == 1.0


def test_a_patient_of_several_folds_is_in_one_group_by_the_mean_distance_from_the_medians():
    # B is 1 below the median of fold 0 (sd 0.816) and 10 above that of fold 1 (sd 8.16): +1.22 - 1.22 = 0, so low
    risk, fold = [3, 1, 2, 10, 20, 0], [0, 0, 0, 1, 1, 1]
    assert high_risk(risk, fold, list("ABCDBE")).tolist() == [True, False, False, False, False, False]
    assert high_risk([3, 1, 2, 10, 21, 0], fold, list("ABCDBE")).tolist() == [True, True, False, False, True, False]


def test_groups_of_a_constant_risk_are_one_although_means_of_slides_are_rounded():
    risk = [np.mean([0.1] * n) for n in range(1, 40)]
    assert len(set(risk)) > 1
    assert not high_risk(risk, np.zeros(39)).any()
