"""Numbers that differ between a healthy representation and a collapsed one."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def feature_statistics(features_BD: Float[Tensor, "B D"]) -> dict[str, Float[Tensor, ""]]:
    """Return the numbers that every objective logs of a batch's features: `feature_std` and `effective_rank`."""
    return {"feature_std": spread(features_BD), "effective_rank": effective_rank(features_BD)}


def spread(features_BD: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return the deviation of unit features over the batch, times the square root of D: 1 is healthy, 0 is collapse.

    It sees all features becoming one; `effective_rank` sees them becoming a line or a plane.
    """
    unit_BD = F.normalize(features_BD.float(), dim=-1)
    return unit_BD.std(dim=0, correction=0).mean() * unit_BD.shape[-1] ** 0.5


def effective_rank(features_BD: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return the number of the features' directions: exp of the entropy of singular values (Roy & Vetterli 2007).

    Of unit features less their mean, so that what all share is not counted as a direction. From 1, if they are on a
    line or all the same, to the smaller of B - 1 and D; NaN if a feature is not finite.
    """
    unit_BD = F.normalize(features_BD.float(), dim=-1)
    if not unit_BD.isfinite().all():
        return unit_BD.new_tensor(torch.nan)  # of which there is no decomposition
    singular = torch.linalg.svdvals(unit_BD - unit_BD.mean(dim=0))
    share = singular / singular.sum().clamp_min(1e-12)
    return torch.special.entr(share).sum().exp()
