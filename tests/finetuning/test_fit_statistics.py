import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from longvit.cohort.patients import Cohort
from longvit.config import NllTask, SubtypeTask
from longvit.finetuning.data import PatientDataset
from longvit.finetuning.fit_statistics import moments, prepare
from longvit.model.predictor import SlideModel
from preprocessing.errors import StoreError

CPU = torch.device("cpu")


@pytest.fixture
def cohort_of_three() -> Cohort:
    targets = pd.DataFrame({"label": ["a", "b", "b"]}, index=["P", "Q", "R"])
    return Cohort({"P": ["p"], "Q": ["q1", "q2"], "R": ["r"]}, targets, ("a", "b"), frozenset(), {}, SubtypeTask())


def tokens(slides: tuple[str, ...]) -> torch.Tensor:
    """(1, L, 4) of as many tokens as the slides' names say, never the same."""
    torch.manual_seed(sum(map(ord, "".join(slides))))
    return torch.randn(1, 3 + len(slides[0]), 4) * 2 + 5


def test_an_attention_model_takes_statistics_of_tokens_and_of_slides_from_the_training_patients(cohort_of_three):
    model = SlideModel(None, SubtypeTask(class_weights="balanced"), ("a", "b"), "attention", 4)
    train = PatientDataset(["P", "Q"], cohort_of_three, cohort_of_three.targets, tokens)
    prepare(model, train, CPU)
    read = [tokens((slide,))[0] for slide in ("p", "q1", "q2")]
    every = torch.cat(read)
    assert_close(model.attention.mean, every.mean(dim=0))
    assert_close(model.attention.std, every.std(dim=0, correction=0))
    vectors = torch.stack([one.mean(dim=0) for one in read])
    assert_close(model.head.mean, vectors.mean(dim=0))
    assert_close(model.head.std, vectors.std(dim=0, correction=0))
    assert model.statistics["class_weights"] == (1.0, 1.0)  # one patient each: R, the second of b, is not in training


@pytest.mark.parametrize("pooling", ["encoder", "attention"])
def test_channels_that_do_not_vary_are_not_blown_up_and_the_run_is_told(cohort_of_three, pooling):
    model = SlideModel(None, SubtypeTask(), ("a", "b"), pooling, 4)
    torch.nn.init.ones_(model.head.linear.weight)

    def read(slides: tuple[str, ...]) -> torch.Tensor:
        torch.manual_seed(ord(slides[0][-1]))
        blank = torch.tensor([3.0, 700.0, -2.0, 0.0]) * (1 + 1e-7 * torch.randn(4))
        return blank.expand(1, 5, 4) if pooling == "attention" else blank[None]

    train = PatientDataset(["P", "Q"], cohort_of_three, cohort_of_three.targets, read)
    (note,) = prepare(model, train, CPU)
    assert "the representations of all 3 training sequences are the same" in note
    assert model.head.std.eq(1).all()
    assert pooling == "encoder" or model.attention.std.eq(1).all()
    assert model(read(("r",))).softmax(1).sub(0.5).abs().max() < 1e-3


def test_training_slides_that_differ_need_no_note(cohort_of_three):
    model = SlideModel(None, SubtypeTask(), ("a", "b"), width=4)
    train = PatientDataset(["P", "Q"], cohort_of_three, cohort_of_three.targets, lambda slides: tokens(slides)[:, 0])
    assert prepare(model, train, CPU) == []


def test_vectors_standardise_the_head_alone(cohort_of_three):
    model = SlideModel(None, SubtypeTask(), ("a", "b"), width=4)
    train = PatientDataset(["P", "Q"], cohort_of_three, cohort_of_three.targets, lambda slides: tokens(slides)[:, 0])
    prepare(model, train, CPU)
    assert_close(model.head.mean, torch.cat([tokens((slide,))[:, 0] for slide in ("p", "q1", "q2")]).mean(dim=0))


def test_bins_come_from_the_training_patients_alone(cohort_of_three):
    targets = pd.DataFrame({"time": [1.0, 2.0, 90.0], "event": [1, 1, 1]}, index=["P", "Q", "R"])
    survival = Cohort(cohort_of_three.slides, targets, (), frozenset(), {}, SubtypeTask())
    model = SlideModel(None, NllTask(bins=2), (), width=4)
    prepare(model, PatientDataset(["P", "Q"], survival, targets, lambda slides: tokens(slides)[:, 0]), CPU)
    assert model.statistics["bin_edges"] == (1.5,)


def test_values_that_are_not_finite_are_refused_with_the_slide(cohort_of_three):
    model = SlideModel(None, SubtypeTask(), ("a", "b"), width=4)

    def read(slides: tuple[str, ...]) -> torch.Tensor:
        return torch.full((1, 4), float("nan") if slides == ("q2",) else 1.0)

    train = PatientDataset(["P", "Q"], cohort_of_three, cohort_of_three.targets, read)
    with pytest.raises(StoreError, match="not finite") as error:
        prepare(model, train, CPU)
    assert error.value.where == "q2"


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_moments_of_parts_are_those_of_the_whole(lengths, seed):
    parts = [
        part.astype(np.float32)
        for part in np.split(np.random.default_rng(seed).normal(7, 2, (sum(lengths), 3)), np.cumsum(lengths)[:-1])
    ]
    mean, std = moments(
        torch.tensor(lengths),
        torch.tensor(np.stack([part.mean(axis=0) for part in parts])),
        torch.tensor(np.stack([part.var(axis=0) for part in parts])),
    )
    whole = np.concatenate(parts)
    assert_close(mean.numpy(), whole.mean(axis=0), rtol=1e-4, atol=1e-4)
    assert_close(std.numpy(), whole.std(axis=0), rtol=1e-3, atol=1e-3)
