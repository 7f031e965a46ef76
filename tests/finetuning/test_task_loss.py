import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from longvit.config import CoxTask, NllTask, SubtypeTask
from longvit.finetuning.losses import cox_loss, nll_loss
from longvit.finetuning.task_loss import TaskLoss, balanced_weights, bin_edges
from longvit.finetuning.windows import Patient

survivors = [Patient([], time=float(time), event=event) for time, event in ((3, True), (1, True), (2, False))]


def survival(times: list[float], events: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"time": times, "event": events})


def test_the_loss_of_survival_is_that_of_the_log_hazards():
    outputs = torch.tensor([[0.0], [1.0], [0.0]])
    expected = cox_loss(outputs[:, 0], torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, True, False]))
    assert TaskLoss(CoxTask())(outputs, survivors) == expected > 0


def test_the_loss_of_subtyping_is_the_cross_entropy_of_the_window():
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    window = [Patient([], label=0), Patient([], label=1)]
    assert TaskLoss(SubtypeTask())(logits, window).item() == pytest.approx(expected)


def test_label_smoothing_moves_part_of_the_truth_to_the_other_classes():
    logits, window = torch.tensor([[2.0, 0.0]]), [Patient([], label=0)]
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    found = TaskLoss(SubtypeTask(label_smoothing=0.2))(logits, window).item()
    assert found == pytest.approx(0.9 * right + 0.1 * wrong)


def test_balanced_classes_count_alike_however_many_patients_they_have():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    window = [Patient([], label=label) for label in (0, 0, 0, 1)]
    targets = pd.DataFrame({"label": ["a", "a", "a", "b"]})
    loss = TaskLoss.from_training(SubtypeTask(class_weights="balanced"), targets, ("a", "b"))
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert loss(logits, window).item() == pytest.approx((right + wrong) / 2)
    assert TaskLoss.from_training(SubtypeTask(), targets, ("a", "b")).class_weights == ()


@given(labels=st.lists(st.sampled_from("abc"), min_size=3, max_size=40).filter(lambda drawn: len(set(drawn)) == 3))
def test_class_weights_are_those_of_scikit_learn(labels):
    expected = compute_class_weight("balanced", classes=np.array(list("abc")), y=labels)
    assert balanced_weights(pd.Series(labels), ("a", "b", "c")) == pytest.approx(expected.tolist())


def test_bins_are_the_quantiles_of_observed_events_and_a_time_on_an_edge_is_in_the_later_one():
    targets = survival([1, 2, 3, 4, 5, 100, 200], [1, 1, 1, 1, 1, 0, 0])
    assert bin_edges(targets, 4) == (2.0, 3.0, 4.0)
    loss = TaskLoss.from_training(NllTask(), targets, ())
    window = [Patient([], time=time, event=True) for time in (0.0, 1.9, 2.0, 3.5, 4.0, 999.0)]
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = nll_loss(logits, torch.tensor([0, 0, 1, 2, 3, 3]), torch.ones(6).bool(), 0.0)
    assert loss(logits, window) == expected


@given(times=st.lists(st.integers(1, 500), min_size=8, max_size=60, unique=True), bins=st.integers(2, 6))
def test_bins_are_those_that_mcat_cuts(times, bins):
    targets = survival([float(time) for time in times], [1] * len(times))
    _, edges = pd.qcut(targets["time"], q=bins, retbins=True, labels=False)
    assert bin_edges(targets, bins) == pytest.approx(edges[1:-1].tolist())


@given(times=st.lists(st.integers(1, 500), min_size=8, max_size=60, unique=True))
def test_every_bin_holds_its_share_of_events(times):
    edges = bin_edges(survival([float(time) for time in times], [1] * len(times)), 4)
    counts = np.bincount(np.searchsorted(edges, times, side="right"), minlength=4)
    assert max(counts) - min(counts) <= 1


def test_alpha_takes_weight_from_the_censored():
    window = [Patient([], time=5.0, event=False)]
    losses = [TaskLoss(NllTask(alpha=alpha), bin_edges=(1.0, 2.0, 3.0))(torch.zeros(1, 4), window) for alpha in (0, 1)]
    assert [loss.item() for loss in losses] == pytest.approx([4 * math.log(2), 0.0])
