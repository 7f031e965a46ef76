import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longvit.model import LongViT
from longvit.pretraining.monitor import MAX_ENTROPY, MIN_RANK, MIN_STD, health, noted, verdict
from longvit.pretraining.pretrain import run
from longvit.tokens import TokenBatch

HEALTHY = {"loss": 3.0, "feature_std": 0.7, "effective_rank": 20.0, "teacher_entropy": 0.8}


def rows(*changes: dict) -> list[dict]:
    return [{"epoch": epoch, **HEALTHY, **change} for epoch, change in enumerate(changes)]


def test_a_healthy_run_says_nothing():
    assert health(rows({}, {}, {})) == []
    assert health([{"epoch": -1, "probe_linear": 0.5}]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feature_std": MIN_STD / 2}, "collapsed: all regions get nearly the same representation"),
        ({"effective_rank": (1 + MIN_RANK) / 2}, "collapsed: representations differ in a single direction"),
        ({"teacher_entropy": (1 + MAX_ENTROPY) / 2}, "collapsed: the teacher has the same output for every crop"),
    ],
)
def test_trouble_is_told_in_words_once_with_the_first_epoch_that_shows_it(change, words):
    (sentence,) = health(rows({}, change, change, {}))
    assert sentence.startswith("epoch 1: the run has ")
    assert words in sentence
    assert "; lower " in sentence  # what to do


@given(
    st.fixed_dictionaries(
        {
            "loss": st.floats(0, 10),
            "feature_std": st.floats(MIN_STD, 2),
            "effective_rank": st.floats(MIN_RANK, 1e4),
            "teacher_entropy": st.floats(0, MAX_ENTROPY),
        }
    )
)
def test_numbers_within_the_criteria_are_no_trouble(numbers):
    assert health([{"epoch": 0, **numbers}]) == []


@pytest.mark.parametrize(
    ("losses", "epoch"), [((2.0, 1.5, 900.0, 800.0), 2), ((3e6,), 0), ((11.0, 200.0), 1), ((0.7, 8.0, 12.0), 2)]
)
def test_a_loss_that_ends_far_above_an_untrained_models_is_told_with_the_epoch(losses, epoch):
    (sentence,) = noted(rows(*({"loss": loss} for loss in losses)), 10, 0.1)
    assert sentence.startswith(f"epoch {epoch}: the loss has risen to {losses[epoch]:.4g}")
    assert "lower optimiser.learning_rate" in sentence


@pytest.mark.parametrize("losses", [(), (0.7, 0.1), (11.0, 10.0), (2.0, 900.0, 1.5)])
def test_a_loss_that_ends_low_is_no_trouble(losses):
    assert noted(rows(*({"loss": loss} for loss in losses)), 10, 0.1) == []


def test_what_an_objective_does_not_log_is_no_trouble():
    assert health([{"epoch": 0, "loss": 1.0}]) == []


@pytest.mark.parametrize(
    ("last", "words"),
    [(0.71, "pretraining helped"), (0.69, "has not clearly helped"), (0.6, "has not helped"), (0.5, "has not")],
)
def test_after_the_last_epoch_the_linear_probe_says_whether_pretraining_helped(last, words):
    probed = [{"epoch": -1, "probe_linear": 0.6}, {"epoch": 0, "probe_linear": 0.9}, {"epoch": 1, "probe_linear": last}]
    assert verdict(probed[:2], 2, noise=0.1) == []
    (sentence,) = verdict(probed, 2, noise=0.1)
    assert words in sentence
    assert f"0.600 with random weights, {last:.3f} at the end" in sentence
    assert noted(probed, 2, 0.1) == [sentence]


def test_without_a_probe_there_is_no_verdict():
    assert verdict(rows({}, {}), 2, noise=0.1) == []


def test_every_epoch_has_a_gradient_norm_and_the_momentum_there_is(any_config):
    views = any_config.views.model_copy(update={"local_views": 0})
    run(any_config.model_copy(update={"views": views}))
    metrics = pd.read_csv(any_config.out / "metrics.csv")
    assert (metrics["gradient_norm"] > 0).all()
    assert metrics["learning_rate"].notna().all()
    if any_config.objective.kind == "masked":
        assert "momentum" not in metrics
    else:
        assert metrics["momentum"].is_monotonic_increasing
        assert metrics["momentum"].iloc[-1] == pytest.approx(1.0)


def test_the_norm_of_the_gradient_is_that_before_it_is_clipped(config):
    norms = {}
    for name, clip in (("clipped", 1e-6), ("free", None)):
        optimiser = config.optimiser.model_copy(update={"clip_norm": clip, "epochs": 1, "warmup_epochs": 0})
        out = config.out / name
        run(config.model_copy(update={"optimiser": optimiser, "out": out, "batch_size": 14}))  # one step
        norms[name] = pd.read_csv(out / "metrics.csv")["gradient_norm"].item()
    assert norms["clipped"] == norms["free"] > 1e-3


def test_a_collapsed_run_says_so_aloud_and_in_its_notes(config, monkeypatch, capsys):
    represent = LongViT.represent

    def same(encoder: LongViT, batch: TokenBatch) -> torch.Tensor:
        vectors = represent(encoder, batch)
        return vectors * 0 + torch.arange(vectors.shape[1])

    monkeypatch.setattr(LongViT, "represent", same)
    run(config)
    notes = (config.out / "notes.txt").read_text()
    assert "epoch 0: the run has collapsed: all regions get nearly the same representation (feature_std 0.000)" in notes
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("all regions get nearly the same representation") == 1
