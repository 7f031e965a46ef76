"""Dilated attention read from the keys' side: how much of what the queries give reaches every key, in O(L) memory.

The weight of a query i on a key j is exp(q_i k_j / sqrt(K) - logsumexp_i), so that the sum over queries

    sum_i given_i P_ij  =  sum_i exp(k_j q_i / sqrt(K) + log given_i - logsumexp_i)

is a softmax denominator again: that of keys which attend to queries, where a query has one channel more for what stands
right of the product. The forward kernel gives its logarithm; no backward pass is needed, and nothing dense is made.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import linear, pad

from longvit.model.attention import DilatedSelfAttention
from longvit.model.backends import attend
from longvit.model.dilated import Group, attend_branches, plan_calls, row_lengths

_WIDTH_ALIGNMENT = 8
"""Kernels for CUDA take head widths that are multiples of this."""


@torch.no_grad()
def received_by_keys(
    attention: DilatedSelfAttention,
    normed_BLD: Float[Tensor, "B L D"],
    mask_BL: Bool[Tensor, "B L"] | None = None,
    given_BL: Float[Tensor, "B L"] | None = None,
) -> Float[Tensor, "R B L H"]:
    """What every key receives in each of the R branches of a layer, for each head: sum_i given_i P_ij.

    The weights P are those of one softmax over the keys of all branches, so that branches add up. They are weights
    among tokens of the slide: phantom keys (`padding="zero_keys"`) take no share. A query that a head covers gives all
    that it has, one that no branch covers gives nothing; with `given_BL` of ones, a head whose branches cover every
    token thus gives L in all.

    Args:
        attention: The layer's attention; not a causal one.
        normed_BLD: What its projections take: the tokens after the layer's norm.
        mask_BL: True for real tokens, which come before all padding of their row.
        given_BL: What each query gives, not negative; default 1.
    """
    config, lengths = attention.config, row_lengths(normed_BLD, mask_BL)
    branches = tuple(zip(config.segment_lengths, config.dilation_ratios, strict=True))
    plan = plan_calls(lengths, config.heads, branches, False, config.heads_at_once)
    plans = [plan_calls(lengths, config.heads, (branch,), False, config.heads_at_once) for branch in branches]
    exact = torch.promote_types(normed_BLD.dtype, torch.float32)
    given_BL = normed_BLD.new_ones(normed_BLD.shape[:2], dtype=exact) if given_BL is None else given_BL.to(exact)
    # The logarithm of nothing would be -inf, of which a row that gets nothing at all would make NaN.
    log_given_BL1 = given_BL.clamp_min(torch.finfo(exact).tiny).log().unsqueeze(-1)
    received_RBLH = normed_BLD.new_zeros((len(branches), *normed_BLD.shape[:2], config.heads), dtype=exact)
    for chunk, (heads, groups) in enumerate(plan):
        q_BLHK, k_BLHK = _queries_and_keys(attention, normed_BLD, heads)
        logsumexp_BLH = attend_branches(q_BLHK, k_BLHK, k_BLHK, groups, False, torch.empty_like(q_BLHK))
        q_BLHK, k_BLHK = _with_bias(q_BLHK.to(exact), k_BLHK.to(exact), log_given_BL1 - logsumexp_BLH)
        for received_BLH, of_branch in zip(received_RBLH, plans, strict=True):
            _add_received_(received_BLH[:, :, heads], q_BLHK, k_BLHK, of_branch[chunk][1])
    return received_RBLH


def _queries_and_keys(attention: DilatedSelfAttention, normed_BLD: Tensor, heads: slice) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, L, h, K) of some heads, laid out head by head: what the kernels read fastest."""
    width = attention.config.width // attention.config.heads
    rows = slice(heads.start * width, heads.stop * width)
    q_BLHK, k_BLHK = (
        linear(normed_BLD, proj.weight[rows], proj.bias[rows]).unflatten(-1, (-1, width))
        for proj in (attention.q_proj, attention.k_proj)
    )
    return tuple(x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q_BLHK, k_BLHK))


def _with_bias(q_BLHK: Tensor, k_BLHK: Tensor, bias_BLH: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of a larger width W, whose logits q k / sqrt(W) are the old ones plus the queries' bias."""
    old = q_BLHK.shape[-1]
    new = old + 1 + -(old + 1) % _WIDTH_ALIGNMENT
    q_BLHW = pad(q_BLHK, (0, new - old))
    q_BLHW[..., old] = bias_BLH
    k_BLHW = pad(k_BLHK * math.sqrt(new / old), (0, new - old))
    k_BLHW[..., old] = math.sqrt(new)
    return q_BLHW, k_BLHW


def _add_received_(received_BLH: Tensor, q_BLHW: Tensor, k_BLHW: Tensor, groups: tuple[Group, ...]) -> None:
    for group in groups:
        q = group.take(q_BLHW)
        _, log_received = attend(group.take(k_BLHW), q, q)  # values are not asked for
        group.view(received_BLH).add_(group.put_back(log_received.exp()))


def idle_share(
    attention: DilatedSelfAttention, tokens_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None = None
) -> Float[Tensor, "B L"]:
    """Share of the heads that look nowhere from a token, because none of their branches covers it.

    It is 0 wherever a branch has ratio 1, as in all published models.

    Args:
        attention: The layer's attention.
        tokens_BLD: Its tokens, for their number, device and dtype.
        mask_BL: True for real tokens, which come before all padding of their row.
    """
    config = attention.config
    branches = tuple(zip(config.segment_lengths, config.dilation_ratios, strict=True))
    idle_BLH = tokens_BLD.new_ones(*tokens_BLD.shape[:2], config.heads)
    lengths = row_lengths(tokens_BLD, mask_BL)
    for heads, groups in plan_calls(lengths, config.heads, branches, False, config.heads_at_once):
        for group in groups:
            group.view(idle_BLH[:, :, heads]).zero_()
    return idle_BLH.mean(-1)
