"""Training module of finetuning: windows of patients -> loss."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from longvit.config import FinetuneConfig
from longvit.finetuning.layer_decay import layer_of, train_last_blocks
from longvit.finetuning.windows import TrainingPatient
from longvit.model.predictor import SlideItem, SlideModel
from longvit.training.loop import TrainingModule
from longvit.training.mesh import current_mesh


class FinetuneModule(TrainingModule):
    """Training of a model on windows of patients; a patient's output is the mean over the patient's sequences."""

    def __init__(self, model: SlideModel, config: FinetuneConfig) -> None:
        super().__init__(config.optimiser, config.seed)
        self.model, self.layer_decay = model, config.optimiser.layer_decay
        self._frozen_blocks = train_last_blocks(model, config.trained_blocks)

    def train(self, mode: bool = True) -> "FinetuneModule":
        """Switch random layers on in trained parts only; frozen blocks compute as in a prediction."""
        super().train(mode)
        for block in self._frozen_blocks:
            block.eval()
        return self

    def rate_of(self, name: str) -> float:
        """Return the layer decay as in BEiT: decay^(depth + 1 - layer) of the learning rate; 1 for the head."""
        if self.model.encoder is None:
            return 1.0
        depth = self.model.encoder.config.depth
        return self.layer_decay ** (depth + 1 - layer_of(name.removeprefix("model."), depth))

    def training_step(self, window: list[TrainingPatient], batch_idx: int) -> Tensor:
        """Return the loss of one window.

        Raises:
            TrainingError: The loss is not finite, so training has diverged.
        """
        loss = self._loss(window, "loss")
        self.require_finite("the loss", loss)
        return loss

    def validation_step(self, window: list[TrainingPatient], batch_idx: int) -> None:
        """Log the loss of the val part, which is a single window."""
        self._loss(window, "val_loss")

    def transfer_batch_to_device(
        self, batch: list[TrainingPatient], device: torch.device, dataloader_idx: int
    ) -> list[TrainingPatient]:
        """Return the batch unmoved: `_run` moves one slide at a time, because a window of whole slides may not fit."""
        return batch

    def _loss(self, window: list[TrainingPatient], name: str) -> Tensor:
        outputs = self.outputs(window)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        loss = self.model.task.loss(outputs, window, self.model.statistics)
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=len(window))
        return loss

    def outputs(self, window: list[TrainingPatient]) -> Tensor:
        """Return the outputs (patients, O); each sequence is computed by itself, at its own length.

        A sequence is moved to the device and computed again in the backward pass. So the device holds one sequence and
        its activations at a time, and the gradient is of the whole window. In a mesh, a `data` rank computes its part
        of the patients, and every rank gets the outputs of all of them.
        """
        mesh = current_mesh()
        own = range(len(window))[mesh.data_part]
        outputs = [self._of_patient(window[i], i) for i in own]
        if mesh.data is None:
            return torch.stack(outputs)
        none_0O = self.model.head.linear.weight.new_empty(0, self.model.head.linear.out_features)
        return mesh.data.spread(torch.stack(outputs) if outputs else none_0O, own, len(window))

    def seed_of(self, place: int, number: int) -> int:
        """Return the seed of a sequence's random numbers, the same on every rank.

        Args:
            place: Place of the patient in the window.
            number: Number of the sequence among the patient's.
        """
        seed = self.seed
        for part in (self.batch_number, place, number):
            seed = seed * 1_000_003 + part
        return seed % 2**63

    def _of_patient(self, patient: TrainingPatient, place: int) -> Tensor:
        outputs = []
        for number, item in enumerate(patient.items):
            if self.training:
                torch.manual_seed(self.seed_of(place, number))
            outputs.append(self._again(item))
        return torch.cat(outputs).mean(dim=0)

    def _again(self, item: SlideItem) -> Tensor:
        if isinstance(item, Tensor) and item.ndim == 2:
            return self._run(item)  # a vector goes through one linear layer: computing it again would save no memory
        return checkpoint(self._run, item, use_reentrant=False)  # type: ignore[return-value]

    def _run(self, item: SlideItem) -> Tensor:
        return self.model(item.to(self.device))
