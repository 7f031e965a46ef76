"""Dilated attention from the keys' side: the attention that every key receives from the queries, in O(L) memory.

The weight of a query i on a key j is exp(q_i k_j / sqrt(K) - logsumexp_i), so that the sum over queries

    sum_i given_i P_ij  =  sum_i exp(k_j q_i / sqrt(K) + log given_i - logsumexp_i)

is again a softmax denominator: keys attend to queries, and a further channel of each query contains the terms after the
product. The forward kernel returns the logarithm of the denominator. There is no backward pass and no dense matrix.
"""

import math
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from longvit.model.attention.exchange import start_exchange
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
    """Return the attention that every key receives in each of a layer's R branches, per head: sum_i given_i P_ij.

    The weights P belong to one softmax over the keys of all branches, so that branches add up. They are weights among
    tokens of the slide: phantom keys (`padding="zero_keys"`) take no share. A query that a head covers gives all of its
    amount, and a query that no branch covers gives nothing. With `given_BL` of ones, a head whose branches cover every
    token thus gives L in total. Additional memory: widened queries and keys of `heads_at_once` heads.

    Args:
        attention: Attention of the layer; it must not be causal.
        x_BLD: Tokens.
        plan: Plan of the forward pass.
        given_BL: Amount that each query gives, not negative; default 1.
        norm: Applied to the tokens before they are projected, a piece of the sequence at a time.
    """
    exact = torch.promote_types(x_BLD.dtype, torch.float32)
    given_BL = x_BLD.new_ones(x_BLD.shape[:2], dtype=exact) if given_BL is None else given_BL.to(exact)
    # The logarithm of 0 is -inf, which would turn a row that receives nothing into NaN.
    log_given_BL1 = given_BL.clamp_min(torch.finfo(exact).tiny).log().unsqueeze(-1)
    received_RBLH = x_BLD.new_zeros((len(plan.branches), *x_BLD.shape[:2], plan.heads), dtype=exact)
    width = x_BLD.shape[-1] // plan.heads
    for heads, groups in plan.calls():
        q_BLHW, k_BLHW = _widened(attention, norm or nn.Identity(), x_BLD, heads, plan, exact)
        logsumexp_BLH = _logsumexp(q_BLHW[..., :width], k_BLHW[..., :width], groups, plan)
        _add_bias_(q_BLHW, k_BLHW, width, log_given_BL1 - logsumexp_BLH)
        _add_received_(received_RBLH[:, :, :, heads], q_BLHW, k_BLHW, groups, plan)
        del q_BLHW, k_BLHW  # before the tensors of the next heads are made
    return received_RBLH


def _widened(
    attention: DilatedSelfAttention,
    norm: nn.Module,
    x_BLD: Tensor,
    heads: slice,
    plan: AttentionPlan,
    dtype: torch.dtype,
) -> list[Tensor]:
    """Return queries and keys of some heads (B, L, h, W), with room for a bias: zeros after their own channels.

    Memory is laid out head by head, which the kernels read fastest.
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


def _logsumexp(
    q_BLHK: Tensor, k_BLHK: Tensor, groups: tuple[HeadGroup, ...], plan: AttentionPlan
) -> Float[Tensor, "B L H"]:
    """Return the logarithm of each query's softmax denominator over the keys of all groups; -inf without any key."""
    logsumexp_BLH = q_BLHK.new_full(q_BLHK.shape[:3], -math.inf)
    exchange = start_exchange(plan, groups, k_BLHK)
    own = ((group, (group.take(k_BLHK),)) for group in groups)
    for group, (k,) in chain(own, exchange.arrived() if exchange else ()):
        merged = group.view(logsumexp_BLH)
        _, more = attend(group.take(q_BLHK), k, k)  # the values are not used
        torch.logaddexp(merged, group.put_back(more), out=merged)
    return logsumexp_BLH


def _add_bias_(q_BLHW: Tensor, k_BLHW: Tensor, width: int, bias_BLH: Tensor) -> None:
    """Change q and k in place: logits q k / sqrt(W) become q k / sqrt(K) plus the queries' bias, for K = `width`."""
    wider = q_BLHW.shape[-1]
    q_BLHW[..., width] = bias_BLH
    k_BLHW *= math.sqrt(wider / width)
    k_BLHW[..., width] = math.sqrt(wider)


def _add_received_(
    received_RBLH: Tensor, q_BLHW: Tensor, k_BLHW: Tensor, groups: tuple[HeadGroup, ...], plan: AttentionPlan
) -> None:
    exchange = start_exchange(plan, groups, q_BLHW)
    own = ((group, (group.take(q_BLHW),)) for group in groups)
    for group, (q,) in chain(own, exchange.arrived() if exchange else ()):
        _, log_received = attend(group.take(k_BLHW), q, q)  # the values are not used
        group.view(received_RBLH[group.branch]).add_(group.put_back(log_received.exp()))


def idle_share(tokens_BLD: Float[Tensor, "B L D"], plan: AttentionPlan) -> Float[Tensor, "B L"]:
    """Return the share of heads in which a token attends to no key, because no branch of the head covers the token.

    It is 0 if a branch has ratio 1, as in all published models.

    Args:
        tokens_BLD: The tokens, for their number, device and dtype.
        plan: Plan of the forward pass.
    """
    idle_BLH = tokens_BLD.new_ones(*tokens_BLD.shape[:2], plan.heads)
    for heads, groups in plan.calls():
        for group in groups:
            group.view(idle_BLH[:, :, heads]).zero_()
    return idle_BLH.mean(-1)
