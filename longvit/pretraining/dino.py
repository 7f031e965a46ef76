"""DINO: a student that must say of any crop what a slowly moving teacher says of another (Caron et al. 2021)."""

from typing import Any

import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn
from torch.nn import functional as F

from longvit.config import DinoConfig, EncoderConfig, PretrainConfig
from longvit.model import LongViT, mean_pool
from longvit.tokens.batch import TokenBatch
from longvit.training import TrainingModule


class Branch(nn.Module):
    """Encoder and projection head: crops -> (B, D) representations, (B, prototypes) projections.

    The mean of the tokens is normalised without weights of its own, so that nothing but the encoder has to be kept.
    """

    def __init__(self, encoder: EncoderConfig, objective: DinoConfig) -> None:
        super().__init__()
        self.encoder = LongViT(encoder)
        self.head = DINOProjectionHead(
            encoder.width,
            objective.hidden,
            objective.bottleneck,
            objective.prototypes,
            freeze_last_layer=objective.freeze_last_layer_epochs,
        )

    def forward(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Representations and projections of a batch of crops."""
        features_BD = mean_pool(self.encoder(batch), batch.mask_BL)
        features_BD = F.layer_norm(features_BD, features_BD.shape[-1:])
        return features_BD, self.head(features_BD)


class DinoModule(TrainingModule):
    """Trains the student by gradient, the teacher as its moving average; the teacher's encoder is what is kept."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config.optimiser, config.seed)
        self.objective = objective = config.objective
        self.student = Branch(config.encoder, objective)
        steady = config.encoder.model_copy(update={"drop_path": 0.0, "dropout": 0.0})
        self.teacher = Branch(steady, objective)
        self.teacher.load_state_dict(self.student.state_dict())
        deactivate_requires_grad(self.teacher)
        self.criterion = DINOLoss(
            objective.prototypes,
            warmup_teacher_temp=objective.teacher_temperature_start,
            teacher_temp=objective.teacher_temperature,
            warmup_teacher_temp_epochs=objective.teacher_temperature_epochs,
            student_temp=objective.student_temperature,
        )

    def training_step(self, views: list[TokenBatch], batch_idx: int) -> Tensor:
        """Loss of one batch of views; the first two are the global ones."""
        local, globals_ = views[2:], TokenBatch.collate(views[:2])
        with torch.no_grad():
            features_BD, teacher = self.teacher(globals_)
        student = list(self.student(globals_)[1].chunk(2))
        if local:
            student += self.student(TokenBatch.collate(local))[1].chunk(len(local))
        loss = self.criterion(list(teacher.chunk(2)), student, epoch=self.current_epoch)
        self.log_dict({"loss": loss, "feature_std": spread(features_BD)}, on_step=False, on_epoch=True)
        self.log("loss_step", loss, prog_bar=True, on_epoch=False)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the last layer of the head as it is in the first epochs."""
        self.student.head.cancel_last_layer_gradients(self.current_epoch)

    def on_train_batch_end(self, outputs: Any, batch: list[TokenBatch], batch_idx: int) -> None:  # noqa: ANN401
        """Move the teacher towards the student."""
        steps = int(self.trainer.estimated_stepping_batches)
        update_momentum(
            self.student, self.teacher, cosine_schedule(self.global_step, steps + 1, self.objective.momentum, 1.0)
        )


def spread(features_BD: Tensor) -> Tensor:
    """Deviation of unit features over the batch, times the square root of D: about 1 is healthy, 0 is collapse."""
    unit_BD = F.normalize(features_BD.float(), dim=-1)
    return unit_BD.std(dim=0, correction=0).mean() * unit_BD.shape[-1] ** 0.5
