"""MoCo v3: find a region's other crop among crops by a slowly moving encoder's output (Chen et al. 2021)."""

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from torch import nn
from torch.nn import functional as F

from longvit.config import MocoConfig, PretrainConfig
from longvit.model import LongViT
from longvit.pretraining.pretrain_module import MomentumModule, Projector, StepOutput
from longvit.pretraining.statistics import feature_statistics
from longvit.tokens.batch import TokenBatch


class MocoModule(MomentumModule[MoCoProjectionHead]):
    """Training of a student and its predictor by gradient, and of a teacher as the student's moving average."""

    def __init__(self, config: PretrainConfig) -> None:
        objective = config.objective
        assert isinstance(objective, MocoConfig)
        sizes = {"hidden_dim": objective.mlp_dim, "output_dim": objective.dim, "batch_norm": True}
        width = config.encoder.width
        super().__init__(config, lambda: MoCoProjectionHead(width, num_layers=3, **sizes), objective.momentum)
        self.predictor = MoCoProjectionHead(objective.dim, num_layers=2, **sizes)
        self.criterion = contrast(objective)

    @property
    def kept(self) -> LongViT:
        """Encoder of the student, as in the official code."""
        return self.student.encoder

    def step(self, views: list[TokenBatch]) -> StepOutput:
        """Return loss and logged numbers of one batch of views, which are two."""
        return moco_step(self.student, self.predictor, self.teacher, self.criterion, views)


def contrast(objective: MocoConfig) -> NTXentLoss:
    """Return the contrastive loss with its queue in the state dict, which lightly omits and a resumed run needs."""
    criterion = NTXentLoss(objective.temperature, (objective.queue, objective.dim) if objective.queue else 0)
    if objective.queue:
        for name, buffer in list(criterion.memory_bank.named_buffers()):
            criterion.memory_bank.register_buffer(name, buffer, persistent=True)
    return criterion


def moco_step(
    student: Projector, predictor: nn.Module, teacher: Projector, criterion: NTXentLoss, views: list[TokenBatch]
) -> StepOutput:
    """Return the symmetric contrastive loss: each of two crops must find the teacher's output for its partner crop.

    Partner crops show the same region. Negatives are the other crops of the batch. If the criterion has a queue,
    negatives are the crops in the queue alone, and the batch is then added to the queue. Both directions use the queue
    at once, so that neither finds its own regions in it. Without a queue, lightly's loss is SimCLR's. Its negatives are
    the teacher's crops of other regions, as in MoCo v3, and the student's crops.

    Args:
        student: Network that is applied to both crops.
        predictor: Network that maps the student's projections to the teacher's.
        teacher: Network that is applied to both crops, without gradient.
        criterion: Loss with temperature and queue.
        views: Two batches of crops of the same regions.

    Returns:
        The loss, with the statistics of the student's features, and `alignment`: the mean cosine between the student's
        prediction from one crop and the teacher's projection of the other crop.
    """
    both = TokenBatch.collate(views)
    with torch.no_grad():
        one_BE, other_BE = teacher(both, 2)[1].chunk(2)
    features_BD, projected_BE = student(both, 2)
    seen_BE, sought_BE = predictor(projected_BE), torch.cat([other_BE, one_BE])
    if criterion.memory_bank.size[0]:
        loss = criterion(seen_BE, sought_BE)
    else:
        first, second = seen_BE.chunk(2)
        loss = (criterion(first, other_BE) + criterion(second, one_BE)) / 2
    alignment = F.cosine_similarity(seen_BE.detach(), sought_BE).mean()
    return StepOutput(loss, {**feature_statistics(features_BD.detach()), "alignment": alignment})
