"""Base Lightning modules of the objectives: a logged step, the encoder to keep, and a following teacher."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.scheduler import cosine_schedule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from longvit.config import EncoderConfig, PretrainConfig
from longvit.model import LongViT
from longvit.model.rank_group import SharedBatch
from longvit.tokens.batch import TokenBatch
from longvit.training.loop import TrainingModule
from longvit.training.mesh import current_mesh

Projector = Callable[[TokenBatch, int], tuple[Float[Tensor, "B D"], Float[Tensor, "B E"]]]
"""Function like `ProjectedEncoder`: crops and the number of views -> representations and projections."""
Head = TypeVar("Head", bound=nn.Module)


class StepOutput(NamedTuple):
    """Result of a step of an objective."""

    loss: Float[Tensor, ""]
    """Loss."""
    logged: dict[str, Tensor]
    """Numbers for the log, without gradient; the log contains their mean over an epoch."""


class PretrainModule(TrainingModule, ABC):
    """Base of the objectives: trains on batches of views, and has an encoder to keep."""

    ranks_alike = True
    momentum_now: float | None = None
    """Momentum of the network that follows the trained network; None if there is no such network."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config.optimiser, config.seed)

    @property
    @abstractmethod
    def kept(self) -> LongViT:
        """Encoder that the run saves."""

    @abstractmethod
    def step(self, views: list[TokenBatch]) -> StepOutput:
        """Return loss and logged numbers of one batch of views."""

    def training_step(self, views: list[TokenBatch], batch_idx: int) -> Tensor:
        """Return the loss of one batch of views, and log the step's numbers.

        Raises:
            TrainingError: The loss is not finite, so training has diverged.
        """
        loss, logged = self.step(views)
        self.require_finite("the loss", loss)
        size = len(views[0].mask_BL)  # equal on all ranks
        self.log_dict({"loss": loss, **logged}, on_step=False, on_epoch=True, batch_size=size)
        self.log("loss_step", loss, prog_bar=True, on_epoch=False, batch_size=size)
        return loss

    def on_train_batch_end(self, outputs: object, batch: list[TokenBatch], batch_idx: int) -> None:
        """Refuse an encoder at the end of an epoch if its weights or representations are not finite."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.trainer.is_last_batch:
            self.require_finite("a representation", self.represent(batch[0]))

    @torch.no_grad()
    def represent(self, batch: TokenBatch) -> Float[Tensor, "B D"]:
        """Return a vector per slide by the encoder to keep, as a user of its checkpoint gets it."""
        encoder, training = self.kept, self.kept.training
        encoder.eval()
        slides_BD = encoder.represent(encoder.share_of(batch))
        encoder.train(training)
        return slides_BD


class ProjectedEncoder(nn.Module, Generic[Head]):
    """Encoder and projection head: crops -> representations (B, D) and projections (B, E).

    A representation is normalised without trained weights, so that only the encoder has to be kept.
    """

    def __init__(self, encoder: EncoderConfig, head: Head) -> None:
        super().__init__()
        self.encoder = LongViT(encoder)
        self.head = head

    def forward(self, batch: TokenBatch, views: int = 1) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B E"]]:
        """Return representations and projections of a batch of crops.

        In a mesh, the ranks encode different crops, and each rank projects the crops of all ranks. So batch norms,
        queues, centres and negatives are those of one process.
        """
        features_BD = represent_together(self.encoder, batch, views)
        features_BD = F.layer_norm(features_BD, features_BD.shape[-1:])
        return features_BD, self.head(features_BD)


def represent_together(encoder: LongViT, batch: TokenBatch, views: int = 1) -> Float[Tensor, "B D"]:
    """Return the vectors of the slides of all `data` ranks, each encoded by its own ranks.

    Args:
        encoder: The encoder.
        batch: Slides of this rank, view after view, whole.
        views: Number of views of the same slides.
    """
    data = current_mesh().data
    encoder.batch = SharedBatch(data, views, len(batch.mask_BL)) if data else None
    try:
        slides_BD = encoder.represent(encoder.share_of(batch))
        return encoder.batch.gathered(slides_BD) if encoder.batch else slides_BD
    finally:
        encoder.batch = None


class MomentumModule(PretrainModule, Generic[Head]):
    """Training of a student, and of a teacher that is the moving average of the past students."""

    def __init__(self, config: PretrainConfig, head: Callable[[], Head], momentum: float) -> None:
        super().__init__(config)
        self.first_momentum = momentum
        self.student = ProjectedEncoder(config.encoder, head())
        steady = config.encoder.model_copy(update={"drop_path": 0.0, "dropout": 0.0})
        self.teacher = ProjectedEncoder(steady, head())
        self.teacher.load_state_dict(self.student.state_dict())
        for network in (self.student, self.teacher):
            network.encoder.execution, network.encoder.group = config.execution, current_mesh().sequence
        deactivate_requires_grad(self.teacher)

    @property
    def momentum_now(self) -> float:  # type: ignore[override]
        """Share of the teacher that its next move keeps; it grows to 1 along a cosine."""
        moves = int(self.trainer.estimated_stepping_batches)
        return cosine_schedule(min(self.global_step + 1, moves), moves + 1, self.first_momentum, 1.0)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], object] | None = None,
    ) -> None:
        """Train the student, then move the teacher towards it.

        The move is here and not at the end of the batch, because callbacks come first there. So a checkpoint that a
        callback writes contains student and teacher of the same step.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        update_momentum(self.student, self.teacher, self.momentum_now)
