"""Dilated attention read from the keys' side: how much of what the queries give reaches every key, in O(L) memory.

The weight of a query i on a key j is exp(q_i k_j / sqrt(K) - logsumexp_i), so that the sum over queries

    sum_i given_i P_ij  =  sum_i exp(k_j q_i / sqrt(K) + log given_i - logsumexp_i)

is a softmax denominator again: that of keys which attend to queries, where a query has one channel more for what stands
right of the product. The forward kernel gives its logarithm; no backward pass is needed, and nothing dense is made.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from longvit.model.attention.layer import DilatedSelfAttention
from longvit.model.attention.plan import AttentionPlan, HeadGroup
from longvit.model.attention.recompute import token_slices
from longvit.model.kernels.registry import attend

_WIDTH_ALIGNMENT = 8
"""Kernels for CUDA take head widths that are multiples of this."""


@torch.no_grad()
def received_by_keys(
    attention: DilatedSelfAttention,
    x_BLD: Float[Tensor, "B L D"],
    plan: AttentionPlan,
    given_BL: Float[Tensor, "B L"] | None = None,
    norm: nn.Module | None = None,
) -> Float[Tensor, "R B L H"]:
    """What every key receives in each of the R branches of a layer, for each head: sum_i given_i P_ij.

    The weights P are those of one softmax over the keys of all branches, so that branches add up. They are weights
    among tokens of the slide: phantom keys (`padding="zero_keys"`) take no share. A query that a head covers gives all
    that it has, one that no branch covers gives nothing; with `given_BL` of ones, a head whose branches cover every
    token thus gives L in all. Memory beside the result: widened queries and keys of `heads_at_once` heads.

    Args:
        attention: The layer's attention; not a causal one.
        x_BLD: Tokens.
        plan: Plan of the forward pass.
        given_BL: What each query gives, not negative; default 1.
        norm: Applied to the tokens before they are projected, a piece of the sequence at a time.
    """
    exact = torch.promote_types(x_BLD.dtype, torch.float32)
    given_BL = x_BLD.new_ones(x_BLD.shape[:2], dtype=exact) if given_BL is None else given_BL.to(exact)
    # The logarithm of nothing would be -inf, of which a row that gets nothing at all would make NaN.
    log_given_BL1 = given_BL.clamp_min(torch.finfo(exact).tiny).log().unsqueeze(-1)
    received_RBLH = x_BLD.new_zeros((len(plan.branches), *x_BLD.shape[:2], plan.heads), dtype=exact)
    width = x_BLD.shape[-1] // plan.heads
    for heads, groups in plan.calls():
        q_BLHW, k_BLHW = _widened(attention, norm or nn.Identity(), x_BLD, heads, plan, exact)
        logsumexp_BLH = _logsumexp(q_BLHW[..., :width], k_BLHW[..., :width], groups)
        _add_bias_(q_BLHW, k_BLHW, width, log_given_BL1 - logsumexp_BLH)
        _add_received_(received_RBLH[:, :, :, heads], q_BLHW, k_BLHW, groups)
        del q_BLHW, k_BLHW  # before those of the next heads
    return received_RBLH


def _widened(
    attention: DilatedSelfAttention,
    norm: nn.Module,
    x_BLD: Tensor,
    heads: slice,
    plan: AttentionPlan,
    dtype: torch.dtype,
) -> list[Tensor]:
    """Queries and keys of some heads (B, L, h, W), with room for a bias: zeros after their own channels.

    They are laid out head by head, which the kernels read fastest.
    """
    width = x_BLD.shape[-1] // plan.heads
    rows, wider = slice(heads.start * width, heads.stop * width), width + 1 + -(width + 1) % _WIDTH_ALIGNMENT
    shape = (len(x_BLD), heads.stop - heads.start, x_BLD.shape[1], wider)
    q_and_k = [x_BLD.new_zeros(shape, dtype=dtype).transpose(1, 2) for _ in range(2)]
    for tokens in token_slices(x_BLD, plan.execution.tokens_at_once):
        piece_BLD = norm(x_BLD[:, tokens]).to(attention.q_proj.weight.dtype)
        for whole_BLHW, proj in zip(q_and_k, (attention.q_proj, attention.k_proj), strict=True):
            of_heads_BLHK = linear(piece_BLD, proj.weight[rows], proj.bias[rows]).unflatten(-1, (-1, width))
            whole_BLHW[:, tokens, :, :width] = of_heads_BLHK
    return q_and_k


def _logsumexp(q_BLHK: Tensor, k_BLHK: Tensor, groups: tuple[HeadGroup, ...]) -> Float[Tensor, "B L H"]:
    """Logarithm of each query's softmax denominator over the keys of all groups; -inf where it has none."""
    logsumexp_BLH = q_BLHK.new_full(q_BLHK.shape[:3], -math.inf)
    for group in groups:
        k, merged = group.take(k_BLHK), group.view(logsumexp_BLH)
        _, more = attend(group.take(q_BLHK), k, k)  # values are not asked for
        torch.logaddexp(merged, group.put_back(more), out=merged)
    return logsumexp_BLH


def _add_bias_(q_BLHW: Tensor, k_BLHW: Tensor, width: int, bias_BLH: Tensor) -> None:
    """Make the logits q k / sqrt(W) what q k / sqrt(K) is on the first K = `width` channels, plus the queries' bias."""
    wider = q_BLHW.shape[-1]
    q_BLHW[..., width] = bias_BLH
    k_BLHW *= math.sqrt(wider / width)
    k_BLHW[..., width] = math.sqrt(wider)


def _add_received_(received_RBLH: Tensor, q_BLHW: Tensor, k_BLHW: Tensor, groups: tuple[HeadGroup, ...]) -> None:
    for group in groups:
        q = group.take(q_BLHW)
        _, log_received = attend(group.take(k_BLHW), q, q)  # values are not asked for
        group.view(received_RBLH[group.branch]).add_(group.put_back(log_received.exp()))


def idle_share(tokens_BLD: Float[Tensor, "B L D"], plan: AttentionPlan) -> Float[Tensor, "B L"]:
    """Share of the heads that look nowhere from a token, because none of their branches covers it.

    It is 0 wherever a branch has ratio 1, as in all published models.

    Args:
        tokens_BLD: The tokens, for their number, device and dtype.
        plan: Plan of the forward pass.
    """
    idle_BLH = tokens_BLD.new_ones(*tokens_BLD.shape[:2], plan.heads)
    for heads, groups in plan.calls():
        for group in groups:
            group.view(idle_BLH[:, :, heads]).zero_()
    return idle_BLH.mean(-1)
