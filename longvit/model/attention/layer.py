"""LongNet's multi-head attention: projections around `dilated_attention`, with the sub-LayerNorm of Magneto."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear

from longvit.config import EncoderConfig
from longvit.model.attention.dilated import dilated_attention, plan_calls, row_lengths
from longvit.model.attention.recompute import in_pieces, piece_tokens, projected_attention

_LONG = 2**16
"""Tokens from which on half as many heads at once pay, in memory, for a stream that is wider than the weights; each
further chunk of heads costs a norm of all tokens, which only on short sequences counts beside attention."""


class DilatedSelfAttention(nn.Module):
    """Multi-head self-attention over dilated segments (LongNet, arXiv:2307.02486).

    A LayerNorm stands between the heads and the output projection (sub-LN, Magneto, arXiv:2210.06423). Parameters have
    their official names. Refused: the official `attention_dropout`, 0 in every published model and there active even
    in evaluation.
    """

    def __init__(self, config: EncoderConfig, *, causal: bool = False) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.inner_attn_ln = nn.LayerNorm(config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        mask_BL: Bool[Tensor, "B L"] | None = None,
        norm: nn.Module | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Attend from every token to the tokens of its segments.

        Args:
            x_BLD: Tokens.
            mask_BL: True for real tokens, which come before all padding of their row.
            norm: Applied to the tokens before they are projected; given here, its result is never there as a whole.
        """
        norm = norm or nn.Identity()
        keep = torch.is_grad_enabled() and self.config.recompute == "nothing"
        heads_BLD = (self._keeping if keep else self._recomputing)(x_BLD, mask_BL, norm)
        return in_pieces(
            lambda piece_BLD: self.out_proj(self.inner_attn_ln(piece_BLD)),
            heads_BLD,
            self.config.tokens_at_once,
            recompute=not keep,
            overwrite=True,
        )

    def _keeping(self, x_BLD: Tensor, mask_BL: Tensor | None, norm: nn.Module) -> Tensor:
        config, x_BLD = self.config, norm(x_BLD).to(self.q_proj.weight.dtype)
        return dilated_attention(
            *(proj(x_BLD).unflatten(-1, (config.heads, -1)) for proj in (self.q_proj, self.k_proj, self.v_proj)),
            config.segment_lengths,
            config.dilation_ratios,
            padding=config.padding,
            mask_BL=mask_BL,
            causal=self.causal,
            heads_at_once=config.heads_at_once,
        ).flatten(-2)

    def _recomputing(self, x_BLD: Tensor, mask_BL: Tensor | None, norm: nn.Module) -> Tensor:
        config, projections = self.config, (self.q_proj, self.k_proj, self.v_proj)
        width = config.width // config.heads

        def project(piece_BLD: Tensor, heads: slice) -> tuple[Tensor, ...]:
            normed_BLD = norm(piece_BLD).to(self.q_proj.weight.dtype)
            rows = slice(heads.start * width, heads.stop * width)
            return tuple(
                linear(normed_BLD, proj.weight[rows], proj.bias[rows]).unflatten(-1, (-1, width))
                for proj in projections
            )

        phantoms = config.padding == "zero_keys" and not self.causal
        narrow = x_BLD.dtype != self.q_proj.weight.dtype and x_BLD.shape[1] > _LONG
        heads_at_once = max(1, config.heads_at_once // 2) if narrow else config.heads_at_once
        plan = plan_calls(row_lengths(x_BLD, mask_BL), config.heads, config.branches, phantoms, heads_at_once)
        weights = (weight for module in (norm, *projections) for weight in module.parameters())
        at_once = piece_tokens(config.tokens_at_once, x_BLD, self.q_proj.weight)
        return projected_attention(project, tuple(weights), x_BLD, plan, causal=self.causal, tokens_at_once=at_once)
