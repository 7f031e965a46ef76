"""DINO: a student predicts, from any crop, a slowly moving teacher's output for another crop (Caron et al. 2021)."""

from typing import Literal

import torch
from jaxtyping import Float
from lightly.loss import DINOLoss
from lightly.loss.swav_loss import sinkhorn
from lightly.models.modules import DINOProjectionHead
from torch import Tensor

from longvit.config import DinoConfig, PretrainConfig
from longvit.model import LongViT
from longvit.pretraining.pretrain_module import MomentumModule, Projector, StepOutput
from longvit.pretraining.statistics import feature_statistics
from longvit.tokens.batch import TokenBatch


class DinoModule(MomentumModule[DINOProjectionHead]):
    """Training of a student by gradient and of a teacher as its moving average; the teacher's encoder is kept."""

    centring: Literal["mean", "sinkhorn"]

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
            center_momentum=1.0 if objective.centring == "sinkhorn" else 0.9,  # at 1, the centre stays at 0
        )
        self.centring = objective.centring

    @property
    def kept(self) -> LongViT:
        """Encoder of the teacher, as in the official code."""
        return self.teacher.encoder

    def step(self, views: list[TokenBatch]) -> StepOutput:
        """Return loss and logged numbers of one batch of views; the first two views are global."""
        return dino_step(self.student, self.teacher, self.criterion, views, self.current_epoch, self.centring)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the last layer of the head unchanged in the first epochs."""
        self.student.head.cancel_last_layer_gradients(self.current_epoch)


def dino_head(width: int, objective: DinoConfig) -> DINOProjectionHead:
    """Build the projection head: three layers, and prototypes of length 1."""
    return DINOProjectionHead(
        width,
        objective.hidden,
        objective.bottleneck,
        objective.prototypes,
        batch_norm=objective.batch_norm,
        freeze_last_layer=objective.freeze_last_layer_epochs,
    )


def dino_step(
    student: Projector,
    teacher: Projector,
    criterion: DINOLoss,
    views: list[TokenBatch],
    epoch: int = 0,
    centring: Literal["mean", "sinkhorn"] = "mean",
) -> StepOutput:
    """Return the cross-entropy between the teacher's output for a global crop and the student's for each other crop.

    Args:
        student: Network that is applied to all crops.
        teacher: Network that is applied to the two global crops, without gradient.
        criterion: Loss with its temperatures and the centre, which it moves towards the mean of the teacher's
            projections.
        views: Two batches of global crops, then the batches of local crops.
        epoch: Epoch, for the schedule of the teacher's temperature.
        centring: `mean` uses the criterion's centre; with `sinkhorn` this centre must be 0 and stays 0.

    Returns:
        The loss, with the statistics of the teacher's features, and `teacher_entropy`: the entropy of the teacher's
        output as a share of the largest possible. Near 1, the output is the same for every crop.
    """
    globals_, local = TokenBatch.collate(views[:2]), views[2:]
    with torch.no_grad():
        features_BD, said_BP = teacher(globals_, 2)
        if centring == "sinkhorn":
            temperature = _temperature(criterion, epoch)
            said_BP = torch.cat([share_evenly(of_view_BP, temperature) for of_view_BP in said_BP.chunk(2)])
    answers = list(student(globals_, 2)[1].chunk(2))
    if local:
        answers += student(TokenBatch.collate(local), len(local))[1].chunk(len(local))
    entropy = _entropy_share((said_BP - criterion.center[0]) / _temperature(criterion, epoch))
    loss = criterion(list(said_BP.chunk(2)), answers, epoch=epoch)
    return StepOutput(loss, {**feature_statistics(features_BD), "teacher_entropy": entropy})


def share_evenly(said_BP: Float[Tensor, "B P"], temperature: float) -> Float[Tensor, "B P"]:
    """Return logits whose softmax is close to the given softmax, but has the same mean for every prototype.

    Rows and columns are scaled in turn as by Sinkhorn and Knopp (SwAV: Caron et al. 2020, arXiv:2006.09882). DINOv2
    uses this in place of DINO's centre (Oquab et al. 2023, arXiv:2304.07193). The scaling is in double precision. At
    low temperatures, which sharpen the softmax, single precision would round a prototype that no crop chose to 0.
    """
    logits_BP = said_BP.double()
    codes_BP = sinkhorn(logits_BP - logits_BP.max(), epsilon=temperature)
    shared_BP = temperature * codes_BP.clamp_min(torch.finfo(torch.double).tiny).log()
    return shared_BP.to(torch.promote_types(said_BP.dtype, torch.float32))  # half precision over 0.01 is coarse


def _temperature(criterion: DINOLoss, epoch: int) -> float:
    """Return the teacher's temperature in an epoch, as the criterion uses it."""
    warming = epoch < criterion.warmup_teacher_temp_epochs
    return float(criterion.teacher_temp_schedule[epoch] if warming else criterion.teacher_temp)


def _entropy_share(logits_BP: Float[Tensor, "B P"]) -> Float[Tensor, ""]:
    """Return the mean entropy of softmaxes over P as a share: 0 if one prototype has all, 1 if all have the same."""
    entropy = torch.special.entr(logits_BP.float().softmax(dim=-1)).sum(dim=-1)
    return entropy.mean() / torch.tensor(float(logits_BP.shape[-1])).log()
