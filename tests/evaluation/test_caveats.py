import numpy as np
import pandas as pd
import pytest

from longvit.evaluation import evaluate_predictions


def said(path, split="test") -> list[str]:
    return evaluate_predictions(path, split)["warnings"]


def some(sentences: list[str], words: str) -> bool:
    return any(words in sentence for sentence in sentences)


def cohort(tmp_path, risk, shuffled=None, *, folds=2, split="test"):
    """60 patients whose event comes the earlier, the higher their number."""
    rng = np.random.default_rng(0)
    ids = [f"P{i}" for i in range(60)]
    table = pd.DataFrame({"patient_id": ids, "slide_id": ids, "fold": np.arange(60) % folds, "split": split})
    table = table.assign(time=61 - np.arange(60), event=rng.integers(0, 2, 60), risk=risk)
    control = [] if shuffled is None else [table.assign(risk=shuffled, shuffled=0)]
    path = tmp_path / "predictions.csv"
    pd.concat([table, *control]).to_csv(path, index=False)
    return path


NOISE = np.random.default_rng(5).normal(size=60)


def test_every_reason_that_holds_is_given(tmp_path):
    sentences = said(cohort(tmp_path, NOISE, shuffled=np.arange(60), split="val"), "val")
    for words in (
        "These are validation patients",
        "The interval of the pooled c-index reaches 0.5",
        "shuffled labels are as good as the model, or better: their pooled c-index is 1.000, the model's is 0.",
        "no better than Kaplan-Meier, one curve for all",
    ):
        assert some(sentences, words), words


def test_what_went_wrong_in_training_is_repeated(tmp_path):
    path = cohort(tmp_path, np.arange(60))
    for fold in (0, 1, 7):
        (tmp_path / f"fold_{fold}").mkdir()
    (tmp_path / "fold_1" / "notes.txt").write_text("the loss rose\nit is not finite\n")
    (tmp_path / "fold_7" / "notes.txt").write_text("of no fold of these predictions\n")
    assert [one for one in said(path) if "Training" in one] == [
        "Training of fold 1: the loss rose",
        "Training of fold 1: it is not finite",
    ]


def test_a_control_within_the_interval_and_an_interval_that_reaches_chance_are_both_given(tmp_path):
    sentences = said(cohort(tmp_path, NOISE, shuffled=-NOISE))
    assert some(sentences, "reaches 0.5")
    assert some(sentences, "shuffled labels are as good") != some(sentences, "control is within the interval")


def test_an_interval_below_chance_does_not_reach_it(tmp_path):
    sentences = said(cohort(tmp_path, -np.arange(60) + 10 * NOISE))
    assert some(sentences, "is below 0.5: the model is worse than chance")
    assert not some(sentences, "reaches 0.5")


def test_a_perfect_score_and_a_constant_one_have_no_width_for_their_own_reasons(tmp_path):
    perfect, constant = said(cohort(tmp_path, np.arange(60))), said(cohort(tmp_path, 0.1))
    assert some(perfect, "comes from a perfect score")
    assert not some(constant, "comes from a perfect score")
    assert some(constant, "every resample gives the same number")


def test_a_number_without_interval_is_said(tmp_path):
    table = pd.DataFrame({"patient_id": list("AB"), "slide_id": list("AB"), "fold": 0, "split": "test"})
    table.assign(time=[1, 2], event=[1, 0], risk=[2, 1]).to_csv(tmp_path / "predictions.csv", index=False)
    assert some(said(tmp_path / "predictions.csv"), "has no interval: most resamples")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("select: best_val\n", "models were selected on them, so the numbers are too good"),
        ("select: last\n", "The run kept the last epoch, so no model was selected on them"),
        ("seed: 0\n", "it is unknown whether models were selected on them"),
        (None, "it is unknown whether models were selected on them"),
    ],
)
def test_validation_patients_are_called_selected_on_only_if_the_run_did_so(tmp_path, settings, words):
    path = cohort(tmp_path, NOISE, split="val")
    if settings is not None:
        path.with_name("config.yaml").write_text(settings)
    sentences = [sentence for sentence in said(path, "val") if "validation" in sentence]
    assert len(sentences) == 1
    assert words in sentences[0]
