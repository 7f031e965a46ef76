"""Statistics that differ between a healthy representation and a collapsed representation."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def feature_statistics(features_BD: Float[Tensor, "B D"]) -> dict[str, Float[Tensor, ""]]:
    """Return the statistics of a batch's features that every objective logs: `feature_std` and `effective_rank`."""
    return {"feature_std": spread(features_BD), "effective_rank": effective_rank(features_BD)}


def spread(features_BD: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return the deviation of unit features over the batch, times the square root of D: 1 is healthy, 0 is collapse.

    It detects features that become equal; `effective_rank` detects features that become a line or a plane.
    """
    unit_BD = F.normalize(features_BD.float(), dim=-1)
    return unit_BD.std(dim=0, correction=0).mean() * unit_BD.shape[-1] ** 0.5


def effective_rank(features_BD: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return the number of the features' directions: exp of the entropy of singular values (Roy & Vetterli 2007).

    It is computed from unit features minus their mean, so that their common part does not count as a direction. The
    result is 1 if the features are on a line or all equal, and at most the smaller of B - 1 and D. It is NaN if a
    feature is not finite.
    """
    unit_BD = F.normalize(features_BD.float(), dim=-1)
    if not unit_BD.isfinite().all():
        return unit_BD.new_tensor(torch.nan)  # NaN has no singular value decomposition
    singular = torch.linalg.svdvals(unit_BD - unit_BD.mean(dim=0))
    share = singular / singular.sum().clamp_min(1e-12)
    return torch.special.entr(share).sum().exp()
