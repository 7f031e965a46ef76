"""LongNet's multi-head attention: projections around `dilated_attention`, with the sub-LayerNorm of Magneto."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from longvit.config import EncoderConfig
from longvit.model.attention.dilated import QKV, attend_by_plan
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.recompute import ProjectedQKV, in_pieces, piece_tokens
from longvit.model.position import rotated

_LONG = 2**16
"""Number of tokens from which half as many heads at once save memory, for a stream that is wider than the weights.

Each further chunk of heads costs a norm of all tokens, which matters only on short sequences.
"""


class DilatedSelfAttention(nn.Module):
    """Multi-head self-attention over dilated segments (LongNet, arXiv:2307.02486).

    A LayerNorm is applied between the heads and the output projection (sub-LN, Magneto, arXiv:2210.06423). Parameters
    have their official names. The official `attention_dropout` is refused: it is 0 in every published model, and the
    official code applies it even in evaluation.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.inner_attn_ln = nn.LayerNorm(config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], plan: AttentionPlan, norm: nn.Module | None = None
    ) -> Float[Tensor, "B L D"]:
        """Attend from every token to the tokens of its segments.

        Args:
            x_BLD: Tokens.
            plan: Plan of the forward pass.
            norm: Applied to the tokens before the projections. Passed in instead of applied by the caller, so that the
                normalised sequence is never materialised.
        """
        norm, execution = norm or nn.Identity(), plan.execution
        keep = torch.is_grad_enabled() and execution.recompute == "nothing"
        heads_BLHK = (self._keeping if keep else self._recomputing)(x_BLD, plan, norm)
        return in_pieces(
            lambda piece_BLD: self.out_proj(self.inner_attn_ln(piece_BLD)),
            heads_BLHK.flatten(2),
            execution.tokens_at_once,
            recompute=not keep,
            overwrite=True,
        )

    def _keeping(self, x_BLD: Tensor, plan: AttentionPlan, norm: nn.Module) -> Tensor:
        x_BLD = norm(x_BLD).to(self.q_proj.weight.dtype)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q_BLHK, k_BLHK, v_BLHK = (proj(x_BLD).unflatten(-1, (plan.heads, -1)) for proj in projections)
        return attend_by_plan(QKV(), plan, *_placed(plan, q_BLHK, k_BLHK), v_BLHK)

    def _recomputing(self, x_BLD: Tensor, plan: AttentionPlan, norm: nn.Module) -> Tensor:
        projections, execution = (self.q_proj, self.k_proj, self.v_proj), plan.execution
        width = self.q_proj.out_features // plan.heads

        def project(piece_BLD: Tensor, heads: slice, first: int) -> tuple[Tensor, Tensor, Tensor]:
            normed_BLD = norm(piece_BLD).to(self.q_proj.weight.dtype)
            rows = slice(heads.start * width, heads.stop * width)
            q_BLHK, k_BLHK, v_BLHK = (
                linear(normed_BLD, proj.weight[rows], proj.bias[rows]).unflatten(-1, (-1, width))
                for proj in projections
            )
            return *_placed(plan, q_BLHK, k_BLHK, first), v_BLHK

        narrow = x_BLD.dtype != self.q_proj.weight.dtype and x_BLD.shape[1] > _LONG
        heads_at_once = max(1, execution.heads_at_once // 2) if narrow else execution.heads_at_once
        at_once = piece_tokens(execution.tokens_at_once, x_BLD, self.q_proj.weight)
        qkv = ProjectedQKV(project, at_once, x_BLD.device.type)
        weights = (weight for module in (norm, *projections) for weight in module.parameters())
        return attend_by_plan(qkv, plan, x_BLD, *weights, heads_at_once=heads_at_once)


def _placed(plan: AttentionPlan, q_BLHK: Tensor, k_BLHK: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """Return queries and keys of neighbouring tokens, rotated if the plan is causal; `first` counts in the share."""
    if not plan.causal:
        return q_BLHK, k_BLHK
    return rotated(q_BLHK, plan.first_token + first), rotated(k_BLHK, plan.first_token + first)
