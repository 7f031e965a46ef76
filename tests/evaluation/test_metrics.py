import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score
from torch import tensor
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from longvit.evaluation import classification_metrics
from longvit.evaluation.metrics import reliability
from preprocessing.errors import CohortError

law = settings(max_examples=30, deadline=None)


def two_columns(score: list[float]) -> np.ndarray:
    return np.column_stack([1 - np.array(score), score])


binary_labels = st.lists(st.integers(0, 1), min_size=2, max_size=30).filter(lambda y: len(set(y)) == 2)


@pytest.mark.parametrize(
    ("label", "score", "auroc"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),  # 3 of 4 pairs
        ([0, 1], [0.2, 0.9], 1.0),
        ([0, 1], [0.9, 0.2], 0.0),
        ([0, 1, 1], [0.5, 0.5, 0.6], 0.75),  # a tie counts one half
    ],
)
def test_auroc_is_the_share_of_ordered_pairs(label, score, auroc):
    assert classification_metrics(label, two_columns(score))["auroc"] == pytest.approx(auroc)


def test_thresholded_numbers_of_a_hand_computed_case():
    metrics = classification_metrics([0, 0, 0, 1, 1], two_columns([0.1, 0.2, 0.3, 0.4, 0.9]))
    assert metrics["accuracy"] == pytest.approx(4 / 5)
    assert metrics["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["f1"] == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert metrics["auprc"] == pytest.approx(1.0)
    assert metrics["n"] == 5


def test_auprc_is_that_of_the_second_class():
    # LUSC at 0.9 (precision 1), LUAD at 0.8, LUSC at 0.7 (precision 2/3)
    assert classification_metrics([1, 0, 1], two_columns([0.9, 0.8, 0.7]))["auprc"] == pytest.approx((1 + 2 / 3) / 2)


def test_three_classes_agree_with_one_vs_rest_of_scikit_learn():
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(3), size=40)
    label = rng.integers(0, 3, 40)
    expected = roc_auc_score(label, probability, multi_class="ovr", average="macro")
    assert classification_metrics(label, probability)["auroc"] == pytest.approx(expected)


def test_a_class_that_does_not_occur_is_left_out_of_the_means():
    probability = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.7, 0.2]]
    metrics = classification_metrics([0, 1, 1], probability)
    assert metrics["auroc"] == metrics["balanced_accuracy"] == metrics["f1"] == 1.0


def test_class_names_do_what_class_numbers_do():
    probability = two_columns([0.1, 0.4, 0.35, 0.8])
    named = classification_metrics(["LUAD", "LUAD", "LUSC", "LUSC"], probability, classes=("LUAD", "LUSC"))
    assert named == classification_metrics([0, 0, 1, 1], probability)


@law
@given(label=binary_labels, data=st.data())
def test_auroc_is_invariant_to_monotone_maps(label, data):
    steps = data.draw(st.lists(st.integers(0, 8), min_size=len(label), max_size=len(label)))
    score = np.array(steps) / 8
    mapped = classification_metrics(label, two_columns(score**3))["auroc"]
    assert mapped == pytest.approx(classification_metrics(label, two_columns(score))["auroc"])


@law
@given(label=binary_labels, data=st.data())
def test_two_classes_have_one_auroc(label, data):
    steps = data.draw(st.lists(st.integers(0, 8), min_size=len(label), max_size=len(label)))
    probability = two_columns(np.array(steps) / 8)
    swapped = classification_metrics(1 - np.array(label), probability[:, ::-1])["auroc"]
    assert swapped == pytest.approx(classification_metrics(label, probability)["auroc"])


@pytest.mark.parametrize(
    ("label", "probability", "says"),
    [
        ([1, 1], two_columns([0.2, 0.9]), "one class"),
        ([0, 1, 1], two_columns([0.2, 0.9]), "do not fit"),
        ([0, 1], [0.2, 0.9], "do not fit"),
        ([0, 2], two_columns([0.2, 0.9]), "not class numbers"),
        ([0, 1], two_columns([0.2, float("nan")]), "not finite"),
    ],
)
def test_what_has_no_auroc_is_refused(label, probability, says):
    with pytest.raises(CohortError, match=says):
        classification_metrics(label, probability)


def test_an_unknown_class_is_named():
    with pytest.raises(CohortError, match="unknown classes: SCLC"):
        classification_metrics(["LUAD", "SCLC"], two_columns([0.2, 0.9]), classes=("LUAD", "LUSC"))


def test_kappa_and_calibration_of_a_hand_computed_case():
    # Calls: 0 0 0 1 for 0 0 1 1: agreed 3/4, by chance 1/2 * 3/4 + 1/2 * 1/4 = 1/2. Gaps: .05 and .35, and .45, .25
    metrics = classification_metrics([0, 0, 1, 1], two_columns([0.05, 0.35, 0.45, 0.75]))
    assert metrics["kappa"] == pytest.approx((3 / 4 - 1 / 2) / (1 - 1 / 2))
    assert metrics["ece"] == pytest.approx((0.05 + 0.35 + 0.55 + 0.25) / 4)


@law
@given(seed=st.integers(0, 2**32 - 1), n_classes=st.integers(2, 4))
def test_calibration_error_agrees_with_torchmetrics(seed, n_classes):
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.ones(n_classes), 60)
    label = np.arange(60) % n_classes
    if n_classes == 2:
        expected = binary_calibration_error(tensor(probability[:, 1]), tensor(label), n_bins=10)
    else:
        expected = multiclass_calibration_error(tensor(probability), tensor(label), n_classes, n_bins=10)
    assert classification_metrics(label, probability)["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_the_reliability_figure_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    stated = rng.random(300)
    truth = (rng.random(300) < stated).astype(int)
    bins = reliability(truth, np.array(two_columns(stated)))
    observed, predicted = calibration_curve(truth, stated, n_bins=10)
    assert [one["observed"] for one in bins] == pytest.approx(observed)
    assert [one["stated"] for one in bins] == pytest.approx(predicted)
    assert sum(one["n"] for one in bins) == 300


def test_a_share_at_the_edge_of_a_bin_belongs_to_the_lower_one():
    bins = reliability(np.array([0, 1, 1]), np.array(two_columns([0.0, 0.1, 1.0])))
    assert [one["n"] for one in bins] == [2, 1]
