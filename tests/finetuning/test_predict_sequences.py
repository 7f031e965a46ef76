import pandas as pd
import pytest
import torch

from longvit.cohort.patients import Cohort
from longvit.config import CoxTask, NllTask, SubtypeTask
from longvit.finetuning.data import PatientDataset
from longvit.finetuning.predict_sequences import predict_and_represent, predict_sequences, truth
from longvit.model.predictor import SlideModel
from longvit.tasks.losses import nll_risk
from longvit.tokens.sequences import Slides

CPU = torch.device("cpu")
SLIDES = {"P": ["p"], "Q": ["q1", "q2"]}
LABELS = Cohort(
    SLIDES, pd.DataFrame({"label": ["a", "b"]}, index=["P", "Q"]), ("a", "b"), frozenset(), {}, SubtypeTask()
)


def read(slides: Slides) -> torch.Tensor:
    """One number: how many slides are read together."""
    return torch.tensor([[float(len(slides))]])


@pytest.fixture
def counter() -> SlideModel:
    """A model whose logit of class b is the number it reads."""
    model = SlideModel(None, SubtypeTask(), ("a", "b"), width=1)
    with torch.no_grad():
        model.head.linear.weight.copy_(torch.tensor([[0.0], [1.0]]))
    return model


def test_with_late_fusion_there_is_a_row_for_each_slide(counter):
    rows = predict_sequences(counter, PatientDataset(["Q", "P"], LABELS, LABELS.targets, read), CPU, {"fold": 3})
    assert [(row["patient_id"], row["slide_id"], row["fold"], row["label"]) for row in rows] == [
        ("Q", "q1", 3, "b"),
        ("Q", "q2", 3, "b"),
        ("P", "p", 3, "a"),
    ]
    assert list(rows[0]) == ["patient_id", "slide_id", "fold", "label", "p_a", "p_b"]
    assert [row["p_b"] for row in rows] == pytest.approx([torch.tensor(1.0).sigmoid().item()] * 3)


def test_with_early_fusion_there_is_a_row_for_each_patient_that_names_all_slides(counter):
    rows = predict_sequences(counter, PatientDataset(["Q", "P"], LABELS, LABELS.targets, read, "early"), CPU, {})
    assert [(row["patient_id"], row["slide_id"]) for row in rows] == [("Q", "q1;q2"), ("P", "p")]
    assert rows[0]["p_b"] == pytest.approx(torch.tensor(2.0).sigmoid().item())


def test_every_row_has_the_vector_that_the_head_reads(counter):
    predicted = predict_and_represent(
        counter, PatientDataset(["Q", "P"], LABELS, LABELS.targets, read, "early"), CPU, {}
    )
    assert predicted.vectors_ND.tolist() == [[2.0], [1.0]]
    assert len(predicted.rows) == 2
    assert predict_and_represent(counter, PatientDataset([], LABELS, LABELS.targets, read), CPU, {}).rows == []


def test_patients_without_known_targets_are_predicted(counter):
    unknown = pd.DataFrame(index=["P", "Q"])
    rows = predict_sequences(counter, PatientDataset(["P"], LABELS, unknown, read), CPU, {"fold": "ensemble"})
    assert list(rows[0]) == ["patient_id", "slide_id", "fold", "p_a", "p_b"]


def test_predictions_are_made_without_random_layers(counter):
    counter.train()
    predict_sequences(counter, PatientDataset(["P"], LABELS, LABELS.targets, read), CPU, {})
    assert not counter.training


def test_outputs_become_columns():
    assert CoxTask().predictions(torch.tensor([0.25]), ()) == {"risk": 0.25}
    probabilities = SubtypeTask().predictions(torch.tensor([0.0, 0.0, 0.0]), ("a", "b", "c"))
    assert probabilities == pytest.approx({"p_a": 1 / 3, "p_b": 1 / 3, "p_c": 1 / 3})
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0])
    assert NllTask().predictions(logits, ()) == {"risk": nll_risk(logits[None]).item()}


@pytest.mark.parametrize("unit", ["days", "months", "years"])
def test_times_stand_next_to_their_unit(unit):
    targets = pd.DataFrame({"time": [3.0], "event": [1]}, index=["P"])
    assert truth(targets, "P", CoxTask(time_unit=unit)) == {"time": 3.0, "event": 1.0, "time_unit": unit}
    assert truth(pd.DataFrame(index=["P"]), "P", CoxTask()) == {}
    assert truth(LABELS.targets, "P", SubtypeTask()) == {"label": "a"}
