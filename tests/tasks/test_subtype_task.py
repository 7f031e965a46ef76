import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from longvit.config import SubtypeTask
from longvit.finetuning.windows import TrainingPatient


def test_the_loss_is_the_cross_entropy_of_the_window():
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    window = [TrainingPatient([], label=0), TrainingPatient([], label=1)]
    assert SubtypeTask().loss(logits, window, {}).item() == pytest.approx(expected)


def test_label_smoothing_moves_part_of_the_truth_to_the_other_classes():
    logits, window = torch.tensor([[2.0, 0.0]]), [TrainingPatient([], label=0)]
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    found = SubtypeTask(label_smoothing=0.2).loss(logits, window, {}).item()
    assert found == pytest.approx(0.9 * right + 0.1 * wrong)


def test_balanced_classes_count_alike_however_many_patients_they_have():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    window = [TrainingPatient([], label=label) for label in (0, 0, 0, 1)]
    targets = pd.DataFrame({"label": ["a", "a", "a", "b"]})
    task = SubtypeTask(class_weights="balanced")
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    loss = task.loss(logits, window, task.fit(targets, ("a", "b")))
    assert loss.item() == pytest.approx((right + wrong) / 2)
    assert SubtypeTask().fit(targets, ("a", "b")) == {}


@given(labels=st.lists(st.sampled_from("abc"), min_size=3, max_size=40).filter(lambda drawn: len(set(drawn)) == 3))
def test_class_weights_are_those_of_scikit_learn(labels):
    expected = compute_class_weight("balanced", classes=np.array(list("abc")), y=labels)
    statistics = SubtypeTask(class_weights="balanced").fit(pd.DataFrame({"label": labels}), ("a", "b", "c"))
    assert statistics == {"class_weights": pytest.approx(tuple(expected.tolist()))}


def test_classes_and_weights_of_another_task_are_not_accepted():
    task = SubtypeTask()
    assert task.accepts(("a", "b"), {})
    assert task.accepts(("a", "b"), {"class_weights": (1.0, 1.0)})
    assert not task.accepts((), {})
    assert not task.accepts(("a", "a"), {})
    assert not task.accepts(("a", "b"), {"class_weights": (1.0,)})
    assert not task.accepts(("a", "b"), {"bin_edges": (1.0, 2.0)})
