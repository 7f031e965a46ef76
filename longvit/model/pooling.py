"""What stands around the blocks: a class token before those of the slide, and tokens -> one vector per slide."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longvit.config import EncoderConfig


def mean_pool(x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B D"]:
    """Mean of the real tokens of each slide, as in LongViT; 0 for a row of padding alone.

    Sums in float32 or wider, whatever the tokens are in: a million of them are too many for bfloat16.
    """
    exact = torch.promote_types(x_BLD.dtype, torch.float32)
    if mask_BL is None:
        return x_BLD.mean(dim=1, dtype=exact)
    total_BD = x_BLD.masked_fill(~mask_BL.unsqueeze(-1), 0).sum(dim=1, dtype=exact)
    return total_BD / mask_BL.sum(dim=1, keepdim=True).clamp_min(1)


class ClassToken(nn.Module):
    """A learned token that stands nowhere, first in the sequence of every slide (Prov-GigaPath)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(1, 1, width))
        nn.init.normal_(self.vector, std=0.02)

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"] | None]:
        """Tokens and mask, both one longer."""
        x_BMD = torch.cat([self.vector.expand(len(x_BLD), -1, -1), x_BLD], dim=1)
        return x_BMD, None if mask_BL is None else nn.functional.pad(mask_BL, (1, 0), value=True)


class Pooling(nn.Module):
    """Tokens, the class token before them if there is one -> the slide's vector.

    As in Prov-GigaPath, whose mean leaves the class token out, and whose last norm comes after the mean.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.by_class, self.first = config.pooling == "class", int(config.class_token)
        self.norm = nn.LayerNorm(config.width, eps=1e-6) if config.final_norm != "none" else nn.Identity()

    def forward(
        self, x_BMD: Float[Tensor, "B M D"], mask_BL: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B D"]:
        """One vector per slide, of the tokens' dtype; `mask_BL` has no class token."""
        pooled_BD = x_BMD[:, 0] if self.by_class else mean_pool(x_BMD[:, self.first :], mask_BL)
        return self.norm(pooled_BD.to(x_BMD.dtype))
