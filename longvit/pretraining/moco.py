"""MoCo v3: find the other crop of a region, as a slowly moving encoder sees it, among others (Chen et al. 2021)."""

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
    """Trains the student and its predictor by gradient, the teacher as the student's moving average."""

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
        """The student's encoder, as in the official code."""
        return self.student.encoder

    def step(self, views: list[TokenBatch]) -> StepOutput:
        """Return loss and numbers of one batch of views, of which there are two."""
        return moco_step(self.student, self.predictor, self.teacher, self.criterion, views)


def contrast(objective: MocoConfig) -> NTXentLoss:
    """Return the contrastive loss with its queue in the state dict, which lightly's lacks and a resumed run needs."""
    criterion = NTXentLoss(objective.temperature, (objective.queue, objective.dim) if objective.queue else 0)
    if objective.queue:
        for name, buffer in list(criterion.memory_bank.named_buffers()):
            criterion.memory_bank.register_buffer(name, buffer, persistent=True)
    return criterion


def moco_step(
    student: Projector, predictor: nn.Module, teacher: Projector, criterion: NTXentLoss, views: list[TokenBatch]
) -> StepOutput:
    """Return the symmetric contrastive loss: each of two crops of a region must find the teacher's view of the other.

    Negatives are the other crops of the batch; if the criterion has a queue, the crops in the queue alone, to which the
    batch is then added. Both directions use the queue at once, so that neither finds its own regions in it. lightly's
    loss without a queue is SimCLR's: its negatives are MoCo v3's, the teacher's crops of other regions, and the
    student's.

    Args:
        student: Sees both crops.
        predictor: Maps the student's projections to the teacher's.
        teacher: Sees both crops; gets no gradient.
        criterion: Holds temperature and queue.
        views: Two batches of crops of the same regions.

    Returns:
        The loss, with the statistics of the student's features, and `alignment`: the mean cosine between what the
        student predicts of a crop and what the teacher makes of the other.
    """
    both = TokenBatch.collate(views)
    with torch.no_grad():
        one_BE, other_BE = teacher(both)[1].chunk(2)
    features_BD, projected_BE = student(both)
    seen_BE, sought_BE = predictor(projected_BE), torch.cat([other_BE, one_BE])
    if criterion.memory_bank.size[0]:
        loss = criterion(seen_BE, sought_BE)
    else:
        first, second = seen_BE.chunk(2)
        loss = (criterion(first, other_BE) + criterion(second, one_BE)) / 2
    alignment = F.cosine_similarity(seen_BE.detach(), sought_BE).mean()
    return StepOutput(loss, {**feature_statistics(features_BD.detach()), "alignment": alignment})
