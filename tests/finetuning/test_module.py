import copy
import math

import pytest
import torch
from torch.testing import assert_close

from longvit.config import CoxTask, SubtypeTask
from longvit.finetuning.losses import cox_loss
from longvit.finetuning.model import SlideModel
from longvit.finetuning.module import FinetuneModule, Patient, task_loss
from longvit.model import LongViT
from longvit.tokens import TokenBatch

COX = CoxTask()


@pytest.fixture
def module(model, config) -> FinetuneModule:
    return FinetuneModule(model, config)


@pytest.fixture
def window(random_slide) -> list[Patient]:
    """Three patients with slides of four lengths."""
    return [
        Patient([random_slide(5, 0), random_slide(30, 1)], label=0, time=2.0, event=True),
        Patient([random_slide(17, 2)], label=1, time=1.0, event=True),
        Patient([random_slide(1, 3)], label=1, time=3.0, event=False),
    ]


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    taken = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return taken


@pytest.mark.parametrize("task", [SubtypeTask(label_smoothing=0.1), COX], ids=["subtype", "cox"])
def test_the_gradient_of_a_window_is_that_of_its_loss_computed_in_one_piece(tiny_encoder, config, window, task):
    torch.manual_seed(0)
    model = SlideModel(LongViT(tiny_encoder), task, ("LUAD", "LUSC") if isinstance(task, SubtypeTask) else ())
    torch.nn.init.normal_(model.head.linear.weight)
    module = FinetuneModule(model.eval(), config)
    task_loss(module.outputs(window), window, task).backward()
    found = gradients(model)
    out = model(TokenBatch.collate([slide for patient in window for slide in patient.slides]))
    task_loss(torch.stack([(out[0] + out[1]) / 2, out[2], out[3]]), window, task).backward()
    expected = gradients(model)
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_what_is_computed_again_draws_the_same_dropout(module, window):
    torch.manual_seed(1)
    task_loss(module.train().outputs(window), window, module.model.task).backward()
    found = gradients(module)
    torch.manual_seed(1)
    outputs = [torch.cat([module.model(slide) for slide in patient.slides]).mean(dim=0) for patient in window]
    task_loss(torch.stack(outputs), window, module.model.task).backward()
    assert_close(found, gradients(module), rtol=1e-5, atol=1e-7)


def test_slides_of_any_length_give_what_they_give_alone(module, window):
    module.eval()
    out = module.outputs(window)
    assert_close(out[1:], torch.cat([module.model(window[1].slides[0]), module.model(window[2].slides[0])]))


def test_a_patient_with_two_slides_counts_once(module, window):
    module.eval()
    (slide,) = window[1].slides
    twice = [window[0], Patient([slide, slide], label=1), window[2]]
    assert_close(module.outputs(twice), module.outputs(window))
    loss = [task_loss(module.outputs(patients), patients, module.model.task) for patients in (twice, window)]
    assert_close(*loss)


def test_representations_and_tokens_of_a_slide_give_the_same_output(module, window):
    module.eval()
    with torch.no_grad():
        known = [Patient([module.model.represent(slide) for slide in patient.slides]) for patient in window]
        assert_close(module.outputs(known), module.outputs(window))


def test_a_frozen_encoder_is_not_trained(model, config, window):
    module = FinetuneModule(model, config.model_copy(update={"freeze_encoder": True}))
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {
        "model.head.linear.weight",
        "model.head.linear.bias",
    }
    assert all(p.requires_grad for p in FinetuneModule(copy.deepcopy(model), config).parameters())


def test_the_loss_of_survival_is_that_of_the_log_hazards():
    window = [Patient([], time=float(time), event=event) for time, event in ((3, True), (1, True), (2, False))]
    outputs = torch.tensor([[0.0], [1.0], [0.0]])
    expected = cox_loss(outputs[:, 0], torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, True, False]))
    assert task_loss(outputs, window, COX) == expected > 0


def test_the_loss_of_subtyping_is_the_cross_entropy_of_the_window():
    window = [Patient([], label=0), Patient([], label=1)]
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    assert task_loss(logits, window, SubtypeTask()).item() == pytest.approx(expected)
