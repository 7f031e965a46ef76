import copy
import weakref
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longvit.config import CoxTask, NllTask, SubtypeTask
from longvit.finetuning.finetune_module import FinetuneModule
from longvit.finetuning.windows import TrainingPatient
from longvit.model import LongViT
from longvit.model.predictor import SlideModel
from longvit.tokens import TokenBatch
from preprocessing.errors import TrainingError


@pytest.fixture
def module(model, config) -> FinetuneModule:
    return FinetuneModule(model, config)


@pytest.fixture
def window(random_slide) -> list[TrainingPatient]:
    """Three patients with slides of four lengths."""
    return [
        TrainingPatient([random_slide(5, 0), random_slide(30, 1)], label=0, time=2.0, event=True),
        TrainingPatient([random_slide(17, 2)], label=1, time=1.0, event=True),
        TrainingPatient([random_slide(1, 3)], label=1, time=3.0, event=False),
    ]


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    taken = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return taken


def relative_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Of two gradients as a whole, in the Euclidean norm."""
    whole = [torch.cat([gradient.flatten() for gradient in one.values()]) for one in (found, expected)]
    return ((whole[0] - whole[1]).norm() / whole[1].norm()).item()


@pytest.mark.parametrize("pooling", ["encoder", "attention"])
@pytest.mark.parametrize("task", [SubtypeTask(label_smoothing=0.1), CoxTask(), NllTask()], ids=["ce", "cox", "nll"])
@pytest.mark.parametrize(("dtype", "largest"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=["64", "32"])
def test_the_gradient_of_a_window_is_that_of_the_full_batch(
    tiny_encoder, config, window, task, pooling, dtype, largest
):
    torch.manual_seed(0)
    classes = ("LUAD", "LUSC") if isinstance(task, SubtypeTask) else ()
    model = SlideModel(LongViT(tiny_encoder), task, classes, pooling).eval().to(dtype)
    statistics = {"bin_edges": (1.5, 2.0, 2.5)} if isinstance(task, NllTask) else {}
    for weight in (
        model.head.linear.weight,
        *(p for name, p in model.named_parameters() if name.startswith("attention.score")),
    ):
        torch.nn.init.normal_(weight)
    module = FinetuneModule(model, config)
    task.loss(module.outputs(window), window, statistics).backward()
    found = gradients(model)
    out = model(TokenBatch.collate([slide for patient in window for slide in patient.items]))  # nothing is done again
    task.loss(torch.stack([(out[0] + out[1]) / 2, out[2], out[3]]), window, statistics).backward()
    expected = gradients(model)
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    assert relative_difference(found, expected) < largest


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors made in its context for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self.freed, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def freed(self, size: int) -> None:
        self.live -= size


def peak_memory(work: Callable[[], torch.Tensor]) -> int:
    """Most bytes that tensors made in a forward and backward pass took at once."""
    with LiveBytes() as memory:
        work().sum().backward()
    return memory.peak


def test_memory_does_not_grow_with_the_window(module, random_slide):
    slides = [random_slide(300, seed) for seed in range(8)]
    windows = [[TrainingPatient([slide]) for slide in slides[:n]] for n in (1, 8)]
    module.eval().outputs(windows[0]).sum().backward()  # the gradients themselves are there
    one, eight = (peak_memory(lambda window=window: module.outputs(window)) for window in windows)
    assert one < eight < 1.2 * one
    kept = peak_memory(lambda: torch.cat([module.model(slide) for slide in slides]))
    assert kept > 4 * one


def test_what_is_computed_again_draws_the_same_dropout(module, window):
    module.model.task.loss(module.train().outputs(window), window, {}).backward()
    found = gradients(module)

    def output(place: int, number: int) -> torch.Tensor:
        torch.manual_seed(module.seed_of(place, number))
        return module.model(window[place].items[number])

    of_patient = lambda place: torch.cat([output(place, number) for number in range(len(window[place].items))])
    outputs = torch.stack([of_patient(place).mean(dim=0) for place in range(len(window))])
    module.model.task.loss(outputs, window, {}).backward()
    assert_close(found, gradients(module), rtol=1e-5, atol=1e-7)


def test_slides_of_any_length_give_what_they_give_alone(module, window):
    module.eval()
    out = module.outputs(window)
    assert_close(out[1:], torch.cat([module.model(window[1].items[0]), module.model(window[2].items[0])]))


def test_a_patient_with_two_slides_counts_once(module, window):
    module.eval()
    (slide,) = window[1].items
    twice = [window[0], TrainingPatient([slide, slide], label=1), window[2]]
    assert_close(module.outputs(twice), module.outputs(window))
    loss = [module.model.task.loss(module.outputs(patients), patients, {}) for patients in (twice, window)]
    assert_close(*loss)


def test_representations_and_tokens_of_a_slide_give_the_same_output(module, window):
    module.eval()
    with torch.no_grad():
        known = [TrainingPatient([module.model.represent(slide) for slide in patient.items]) for patient in window]
        assert_close(module.outputs(known), module.outputs(window))


def test_a_frozen_encoder_is_not_trained(model, config, window):
    module = FinetuneModule(model, config.model_copy(update={"trained_blocks": 0}))
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {
        "model.head.linear.weight",
        "model.head.linear.bias",
    }
    assert all(p.requires_grad for p in FinetuneModule(copy.deepcopy(model), config).parameters())


def test_tokens_that_a_frozen_encoder_made_give_what_the_slide_gives(tiny_encoder, config, window):
    model = SlideModel(LongViT(tiny_encoder), SubtypeTask(), ("a", "b"), "attention")
    torch.nn.init.normal_(model.head.linear.weight)
    torch.nn.init.normal_(model.attention.score.weight)
    module = FinetuneModule(model, config.model_copy(update={"trained_blocks": 0})).eval()
    with torch.no_grad():
        known = [TrainingPatient([model.encode(slide) for slide in patient.items]) for patient in window]
        assert {item.ndim for patient in known for item in patient.items} == {3}
        assert_close(module.outputs(known), module.outputs(window))


def test_a_loss_that_is_not_a_number_stops_the_training(module, window, monkeypatch):
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(FinetuneModule, "current_epoch", 3)
    assert module.training_step(window, 0).isfinite()
    torch.nn.init.constant_(module.model.head.linear.weight, float("nan"))
    with pytest.raises(TrainingError, match="the loss became nan in epoch 3"):
        module.training_step(window, 0)
