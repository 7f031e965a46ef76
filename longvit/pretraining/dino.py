"""DINO: a student that must say of any crop what a slowly moving teacher says of another (Caron et al. 2021)."""

import torch
from jaxtyping import Float
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from torch import Tensor

from longvit.config import DinoConfig, PretrainConfig
from longvit.model import LongViT
from longvit.pretraining.module import MomentumModule, Projector, Step
from longvit.pretraining.statistics import feature_statistics
from longvit.tokens.batch import TokenBatch


class DinoModule(MomentumModule):
    """Trains the student by gradient, the teacher as its moving average; the teacher's encoder is what is kept."""

    def __init__(self, config: PretrainConfig) -> None:
        objective = config.objective
        assert isinstance(objective, DinoConfig)
        super().__init__(config, lambda: dino_head(config.encoder.width, objective), objective.momentum)
        self.criterion = DINOLoss(
            objective.prototypes,
            warmup_teacher_temp=objective.teacher_temperature_start,
            teacher_temp=objective.teacher_temperature,
            warmup_teacher_temp_epochs=objective.teacher_temperature_epochs,
            student_temp=objective.student_temperature,
        )

    @property
    def kept(self) -> LongViT:
        """The teacher's encoder, as in the official code."""
        return self.teacher.encoder

    def step(self, views: list[TokenBatch]) -> Step:
        """Loss and numbers of one batch of views; the first two are the global ones."""
        return dino_step(self.student, self.teacher, self.criterion, views, self.current_epoch)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the last layer of the head as it is in the first epochs."""
        self.student.head.cancel_last_layer_gradients(self.current_epoch)


def dino_head(width: int, objective: DinoConfig) -> DINOProjectionHead:
    """Three layers, and prototypes of length 1 to compare with."""
    return DINOProjectionHead(
        width,
        objective.hidden,
        objective.bottleneck,
        objective.prototypes,
        batch_norm=objective.batch_norm,
        freeze_last_layer=objective.freeze_last_layer_epochs,
    )


def dino_step(
    student: Projector, teacher: Projector, criterion: DINOLoss, views: list[TokenBatch], epoch: int = 0
) -> Step:
    """Cross-entropy between what the teacher says of a global crop and the student of each other crop.

    Args:
        student: Sees all crops.
        teacher: Sees the two global crops; gets no gradient.
        criterion: Holds the centre, which it moves towards the mean of the teacher's projections, and the temperatures.
        views: Two batches of global crops, then those of the local ones.
        epoch: Place in the schedule of the teacher's temperature.

    Returns:
        The loss, with the statistics of the teacher's features, and `teacher_entropy`: the entropy of what the teacher
        says of a crop as a share of the largest possible. Where it goes to 1, the teacher says the same of every crop.
    """
    globals_, local = TokenBatch.collate(views[:2]), views[2:]
    with torch.no_grad():
        features_BD, said_BP = teacher(globals_)
    answers = list(student(globals_)[1].chunk(2))
    if local:
        answers += student(TokenBatch.collate(local))[1].chunk(len(local))
    entropy = _entropy_share((said_BP - criterion.center[0]) / criterion.teacher_temp)
    loss = criterion(list(said_BP.chunk(2)), answers, epoch=epoch)
    return Step(loss, {**feature_statistics(features_BD), "teacher_entropy": entropy})


def _entropy_share(logits_BP: Float[Tensor, "B P"]) -> Float[Tensor, ""]:
    """Mean entropy of softmaxes over P, from 0 where one prototype has all to 1 where all have the same."""
    entropy = torch.special.entr(logits_BP.float().softmax(dim=-1)).sum(dim=-1)
    return entropy.mean() / torch.tensor(float(logits_BP.shape[-1])).log()
