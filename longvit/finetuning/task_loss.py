"""The loss of a task on a window of patients, with what it takes from the training patients."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longvit.config import NllTask, SubtypeTask, Task
from longvit.finetuning.losses import cox_loss, nll_loss
from longvit.finetuning.windows import Patient


@dataclass(frozen=True)
class TaskLoss:
    """Cross-entropy, Cox's partial likelihood or a discrete-time likelihood; kept in the model's file.

    Args:
        task: What is predicted.
        class_weights: Weight of each class; none: all count alike.
        bin_edges: The times between the bins of a discrete-time model, in the table's unit.
    """

    task: Task
    class_weights: tuple[float, ...] = ()
    bin_edges: tuple[float, ...] = ()

    @classmethod
    def from_training(cls, task: Task, targets: pd.DataFrame, classes: tuple[str, ...]) -> "TaskLoss":
        """Weights and bins from the targets of the training patients alone, a row each."""
        if isinstance(task, NllTask):
            return cls(task, bin_edges=bin_edges(targets, task.bins))
        if isinstance(task, SubtypeTask) and task.class_weights == "balanced":
            return cls(task, class_weights=balanced_weights(targets["label"], classes))
        return cls(task)

    def __call__(self, outputs: Tensor, window: list[Patient]) -> Tensor:
        """Loss of (patients, outputs): logits of classes, one log hazard each, or a logit for each bin."""
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if isinstance(self.task, SubtypeTask):
            labels = torch.tensor([patient.label for patient in window], device=outputs.device)
            weights = outputs.new_tensor(self.class_weights) if self.class_weights else None
            return cross_entropy(outputs, labels, weights, label_smoothing=self.task.label_smoothing)
        event = torch.tensor([patient.event for patient in window], device=outputs.device)
        times = [patient.time for patient in window]
        if isinstance(self.task, NllTask):
            bins = torch.from_numpy(np.searchsorted(self.bin_edges, times, side="right")).to(outputs.device)
            return nll_loss(outputs, bins, event, self.task.alpha)
        return cox_loss(outputs[:, 0], outputs.new_tensor(times), event)


def bin_edges(targets: pd.DataFrame, bins: int) -> tuple[float, ...]:
    """The quantiles of the times of observed events that lie between `bins` bins; a time on an edge is in the later.

    As in MCAT and LongViT, but of the training patients: theirs are of all patients, those held out included.
    """
    times = targets.loc[targets["event"] == 1, "time"].astype(float)
    return tuple(times.quantile(np.arange(1, bins) / bins).tolist())


def balanced_weights(labels: pd.Series, classes: tuple[str, ...]) -> tuple[float, ...]:
    """Inverse share of each class, over the number of classes: 1 on average over patients."""
    counts = labels.value_counts()
    return tuple(float(len(labels) / (len(classes) * counts[name])) for name in classes)
