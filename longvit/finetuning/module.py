"""The training module of finetuning: windows of patients -> loss."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from longvit.config import CoxTask, FinetuneConfig, SubtypeTask
from longvit.finetuning.losses import cox_loss
from longvit.finetuning.model import SlideModel
from longvit.tokens.batch import TokenBatch
from longvit.training import TrainingModule


@dataclass(frozen=True)
class Patient:
    """One patient: the slides, as tokens or as representations (1, D), and the target."""

    slides: list[TokenBatch] | list[Tensor]
    label: int = -1
    time: float = field(default=float("nan"))
    event: bool = False


class FinetuneModule(TrainingModule):
    """Trains a model on windows of patients; a patient's output is the mean over the slides."""

    def __init__(self, model: SlideModel, config: FinetuneConfig) -> None:
        super().__init__(config.optimiser, config.seed)
        self.model = model
        model.encoder.requires_grad_(not config.freeze_encoder)

    def training_step(self, window: list[Patient], batch_idx: int) -> Tensor:
        """Loss of one window."""
        return self._loss(window, "loss")

    def validation_step(self, window: list[Patient], batch_idx: int) -> None:
        """Loss of the val part, all in one window."""
        self._loss(window, "val_loss")

    def transfer_batch_to_device(
        self, batch: list[Patient], device: torch.device, dataloader_idx: int
    ) -> list[Patient]:
        """Slides travel one at a time, in `outputs`: a window of whole slides may not fit."""
        return batch

    def _loss(self, window: list[Patient], name: str) -> Tensor:
        loss = task_loss(self.outputs(window), window, self.model.task)
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=len(window))
        return loss

    def outputs(self, window: list[Patient]) -> Tensor:
        """(patients, outputs): each slide is run for itself, whatever its length.

        Its activations are computed again in the backward pass, so that memory holds those of one slide at a time and
        the gradient is that of the whole window.
        """
        rows = []
        for patient in window:
            slides = [slide.to(self.device) for slide in patient.slides]
            outputs = [self.model.head(s) if isinstance(s, Tensor) else self._run(s) for s in slides]
            rows.append(torch.cat(outputs).mean(dim=0))
        return torch.stack(rows)

    def _run(self, slide: TokenBatch) -> Tensor:
        return checkpoint(self.model, slide, use_reentrant=False)  # type: ignore[return-value]


def task_loss(outputs: Tensor, window: list[Patient], task: SubtypeTask | CoxTask) -> Tensor:
    """Cross-entropy of (patients, classes) logits, or Cox's partial likelihood loss of (patients, 1) log hazards."""
    if isinstance(task, SubtypeTask):
        labels = torch.tensor([patient.label for patient in window], device=outputs.device)
        return F.cross_entropy(outputs, labels, label_smoothing=task.label_smoothing)
    event = torch.tensor([patient.event for patient in window], device=outputs.device)
    time = torch.tensor([patient.time for patient in window], device=outputs.device)
    return cox_loss(outputs[:, 0].float(), time, event)
