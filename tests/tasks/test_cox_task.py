import torch

from longvit.config import CoxTask
from longvit.finetuning.windows import TrainingPatient
from longvit.tasks.losses import cox_loss

WINDOW = [TrainingPatient([], time=float(time), event=event) for time, event in ((3, True), (1, True), (2, False))]


def test_the_loss_is_that_of_the_log_hazards():
    outputs = torch.tensor([[0.0], [1.0], [0.0]])
    expected = cox_loss(outputs[:, 0], torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, True, False]))
    assert CoxTask().loss(outputs, WINDOW, {}) == expected > 0


def test_it_has_one_output_without_classes_or_statistics():
    task = CoxTask()
    assert task.outputs(()) == 1
    assert task.accepts((), {})
    assert not task.accepts(("a", "b"), {})
    assert not task.accepts((), {"bin_edges": (1.0,)})


def test_windows_hold_enough_events():
    assert CoxTask(min_events=3).most_windows(torch.tensor([1, 1, 0, 1, 1, 1, 1, 1])) == 2
