import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvit.evaluation import classification_metrics, survival_metrics
from longvit.evaluation.intervals import (
    percentile_interval,
    resample_weights,
    resampled_c_index,
    resampled_classification,
)
from longvit.evaluation.metrics import CLASSIFICATION_METRICS

law = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@law
@given(seed=seeds, n_classes=st.integers(2, 4))
def test_a_weighted_classification_is_that_of_repeated_patients(seed, n_classes):
    rng = np.random.default_rng(seed)
    n = 5 * n_classes
    truth = np.arange(n) % n_classes
    probability = rng.integers(1, 6, (n, n_classes)).astype(float)  # few values, so that scores tie
    probability /= probability.sum(axis=1, keepdims=True)
    weights = rng.integers(0, 3, (1, n)).astype(float)
    weights[0, :n_classes] = 1  # every class is drawn
    again = np.repeat(np.arange(n), weights[0].astype(int))
    expected = classification_metrics(truth[again], probability[again])
    resampled = resampled_classification(truth, probability, weights)
    assert {name: resampled[name][0] for name in CLASSIFICATION_METRICS} == pytest.approx(
        {name: expected[name] for name in CLASSIFICATION_METRICS}
    )


@law
@given(seed=seeds)
def test_a_weighted_c_index_is_that_of_repeated_patients(seed):
    rng = np.random.default_rng(seed)
    n = 16
    survival = {"time": rng.integers(0, 9, n), "event": rng.integers(0, 2, n), "risk": rng.integers(0, 5, n)}
    survival["time"][:2], survival["event"][0] = (0, 9), 1  # at least one comparable pair
    fold = np.arange(n) // 2 % 2
    weights = rng.integers(0, 3, (1, n)).astype(float)
    weights[0, :2] = 1
    again = np.repeat(np.arange(n), weights[0].astype(int))
    expected = survival_metrics(*(survival[name][again] for name in ("time", "event", "risk")), stratum=fold[again])
    assert resampled_c_index(survival, fold, weights)[0] == pytest.approx(expected["c_index"])


def test_a_resample_without_a_class_or_without_pairs_has_no_number():
    classification = resampled_classification(
        np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    )
    for name in ("auroc", "auprc", "balanced_accuracy", "f1"):
        assert np.isnan(classification[name]).tolist() == [True, True, False]
    survival = {"time": np.array([1, 2]), "event": np.array([1, 0]), "risk": np.array([1, 0])}
    assert np.isnan(resampled_c_index(survival, np.zeros(2), np.array([[2.0, 0.0], [1.0, 1.0]]))).tolist() == [
        True,
        False,
    ]


def test_all_rows_of_a_patient_are_drawn_together():
    weights = resample_weights(["A", "B", "A", "C"], resamples=200)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, 0].std() > 0


def test_a_draw_depends_on_the_patient_and_not_on_the_row():
    forward, backward = resample_weights(["A", "B", "C"]), resample_weights(["C", "B", "A"])
    assert (forward == backward[:, ::-1]).all()


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    n, p = 400, 0.8
    right = np.arange(n) < p * n
    low, high = percentile_interval(resample_weights(np.arange(n)) @ right / n)
    half = 1.96 * np.sqrt(p * (1 - p) / n)
    assert (low, high) == pytest.approx((p - half, p + half), abs=0.006)


def test_there_is_no_interval_where_most_resamples_have_no_number():
    assert percentile_interval(np.array([0.5, np.nan, np.nan])) is None
    assert percentile_interval(np.array([0.5, 0.5, np.nan])) == (0.5, 0.5)
