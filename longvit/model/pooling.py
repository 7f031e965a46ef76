"""Layers around the blocks: a class token before the tokens of the slide, and pooling to one vector per slide."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longvit.config import EncoderConfig
from longvit.model.rank_group import RankGroup

ROUNDING = 1e-5
"""Deviation relative to the size of the values, below which values differ only by rounding in float32."""


def varies(mean_D: Float[Tensor, " D"], std_D: Float[Tensor, " D"]) -> Bool[Tensor, " D"]:
    """Return which channels vary by more than rounding.

    A forward pass rounds a channel relative to the values that it sums, so the size of all channels counts.
    """
    return std_D > ROUNDING * (mean_D**2 + std_D**2).mean().sqrt()


def mean_pool(
    x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None = None, group: RankGroup | None = None
) -> Float[Tensor, "B D"]:
    """Return the mean of the real tokens of each slide, as in LongViT; 0 for a row that is only padding.

    With a group, which holds the slides together, it is the mean over the tokens of all ranks.

    Sums are in float32 or wider for tokens of any type, because bfloat16 is too imprecise to sum a million tokens.
    """
    exact = torch.promote_types(x_BLD.dtype, torch.float32)
    if mask_BL is None and group is None:
        return x_BLD.mean(dim=1, dtype=exact)
    real_BLD = x_BLD if mask_BL is None else x_BLD.masked_fill(~mask_BL.unsqueeze(-1), 0)
    total_BD = real_BLD.sum(dim=1, dtype=exact)
    mask_BL = x_BLD.new_ones(x_BLD.shape[:2], dtype=torch.bool) if mask_BL is None else mask_BL
    count_B1 = mask_BL.sum(dim=1, keepdim=True)
    if group is not None:
        total_BD, count_B1 = group.sum(total_BD), group.sum(count_B1)
    return total_BD / count_B1.clamp_min(1)


class ClassToken(nn.Module):
    """Learned token without a place, first in the sequence of every slide (Prov-GigaPath)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(1, 1, width))
        nn.init.normal_(self.vector, std=0.02)

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None, group: RankGroup | None = None
    ) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"] | None]:
        """Return tokens and mask with the class token before them, both longer by 1; unchanged on later ranks."""
        first = int(group is None or group.rank == 0)
        x_BMD = torch.cat([self.vector.expand(len(x_BLD), first, -1), x_BLD], dim=1)
        return x_BMD, None if mask_BL is None else nn.functional.pad(mask_BL, (first, 0), value=True)


class Pooling(nn.Module):
    """Pooling of tokens, which may start with a class token -> the slide's vector.

    As in Prov-GigaPath, the mean leaves the class token out, and the last norm follows the mean.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.by_class, self.first = config.pooling == "class", int(config.class_token)
        self.norm = nn.LayerNorm(config.width, eps=1e-6) if config.final_norm != "none" else nn.Identity()

    def forward(
        self,
        x_BMD: Float[Tensor, "B M D"],
        mask_BL: Bool[Tensor, "B L"] | None = None,
        group: RankGroup | None = None,
    ) -> Float[Tensor, "B D"]:
        """Return one vector per slide, of the tokens' dtype; `mask_BL` does not include the class token."""
        first = self.first if group is None or group.rank == 0 else 0
        if self.by_class:
            pooled_BD = x_BMD[:, 0] if group is None else group.sum(x_BMD[:, :first].sum(1))
        else:
            pooled_BD = mean_pool(x_BMD[:, first:], mask_BL, group)
        return self.norm(pooled_BD.to(x_BMD.dtype))


class GatedAttention(nn.Module):
    """Gated attention over the tokens of a slide (ABMIL, Ilse et al. 2018, arXiv:1802.04712, equation 9).

    A token's score is w . (tanh(V h) * sigmoid(U h)); a softmax over the slide turns scores into weights. The scored h
    is standardised by the training slides' tokens, whose common mean would otherwise saturate the tanh. The weighted
    sum is over the original tokens. w starts at 0, so that an untrained pooling is the mean.

    Args:
        width: Width D of a token.
        hidden: Width of V h and U h; 128 in the paper.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.content, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)  # V and U
        self.score = nn.Linear(hidden, 1, bias=False)  # w; a bias would cancel in the softmax
        for linear in (self.content, self.gate):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.score.weight)

    def standardise_by(self, mean_D: Float[Tensor, " D"], std_D: Float[Tensor, " D"]) -> None:
        """Set mean and deviation of the training slides' tokens; a channel that does not vary gets deviation 1."""
        self.mean.copy_(mean_D)
        self.std.copy_(std_D.where(varies(mean_D, std_D), 1.0))

    def weights(
        self,
        x_BLD: Float[Tensor, "B L D"],
        mask_BL: Bool[Tensor, "B L"] | None = None,
        group: RankGroup | None = None,
    ) -> Float[Tensor, "B L"]:
        """Return the weight of each token in its slide's vector: sum 1 over a slide on all ranks, 0 for padding."""
        h_BLD = (x_BLD - self.mean) / self.std
        score_BL = self.score(self.content(h_BLD).tanh() * self.gate(h_BLD).sigmoid()).squeeze(-1)
        if mask_BL is not None:
            score_BL = score_BL.masked_fill(~mask_BL, -math.inf)
        exact = torch.promote_types(x_BLD.dtype, torch.float32)
        if group is None:
            return score_BL.softmax(dim=1, dtype=exact)
        share_BL = (score_BL.to(exact) - group.max(score_BL.to(exact).amax(1, keepdim=True))).exp()
        return share_BL / group.sum(share_BL.sum(1, keepdim=True))

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        mask_BL: Bool[Tensor, "B L"] | None = None,
        group: RankGroup | None = None,
    ) -> Float[Tensor, "B D"]:
        """Return one vector per slide, in float32 or wider."""
        weights_BL = self.weights(x_BLD, mask_BL, group)
        pooled_BD = torch.einsum("bl,bld->bd", weights_BL, x_BLD.to(weights_BL.dtype))
        return pooled_BD if group is None else group.sum(pooled_BD)
