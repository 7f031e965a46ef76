"""Tokens -> one vector per slide."""

from jaxtyping import Bool, Float
from torch import Tensor


def mean_pool(x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """Mean of the real tokens of each slide, as in LongViT; 0 for a row of padding alone."""
    weight_BL1 = mask_BL[..., None].to(x_BLD.dtype)
    return (x_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1).clamp_min(1)
