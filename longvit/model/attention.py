"""LongNet's multi-head attention: projections around `dilated_attention`, with the sub-LayerNorm of Magneto."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from longvit.config import EncoderConfig
from longvit.model.dilated import dilated_attention


class DilatedSelfAttention(nn.Module):
    """Multi-head self-attention over dilated segments (LongNet, arXiv:2307.02486).

    A LayerNorm stands between the heads and the output projection (sub-LN, Magneto, arXiv:2210.06423). Parameters have
    their official names. The official `attention_dropout`, 0 in every published model and there active even in
    evaluation, is left out.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.inner_attn_ln = nn.LayerNorm(config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """Attend from every token to the tokens of its segments; True in `mask_BL` is a real token."""
        q_BLHK, k_BLHK, v_BLHK = (
            proj(x_BLD).unflatten(-1, (self.config.heads, -1)) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        out_BLHK = dilated_attention(
            q_BLHK,
            k_BLHK,
            v_BLHK,
            self.config.segment_lengths,
            self.config.dilation_ratios,
            padding=self.config.padding,
            mask_BL=mask_BL,
        )
        return self.out_proj(self.inner_attn_ln(out_BLHK.flatten(-2)))
