import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.model.attention import received
from longvit.model.attention.dilated import attend_branches, attend_branches_backward
from longvit.model.attention.layer import DilatedSelfAttention
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.shares import row_lengths

seeds = st.integers(0, 2**31)
# Segments and ratios that neither divide each other nor the sequence nor the heads, longer ones than it included.
branches = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=3)


class Layer(DilatedSelfAttention):
    """A layer that remembers its settings."""

    def __init__(self, heads: int, pairs, seed: int, width: int = 4, **changes) -> None:
        lengths, ratios = zip(*pairs, strict=True)
        settings = {"width": width * heads, "heads": heads, "segment_lengths": lengths, "dilation_ratios": ratios}
        torch.manual_seed(seed)
        self.config = EncoderConfig(**settings | changes)
        super().__init__(self.config)
        self.double()
        for proj in (self.q_proj, self.k_proj):
            torch.nn.init.normal_(proj.weight, std=1.0)  # attention that is far from even


def plan_of(attention: Layer, x_BLD: Tensor, mask_BL: Tensor | None = None, **how) -> AttentionPlan:
    execution = ExecutionConfig(**{"heads_at_once": 2} | how)
    return AttentionPlan.of(attention.config, row_lengths(x_BLD, mask_BL), execution)


def received_by_keys(attention: Layer, x_BLD: Tensor, mask_BL: Tensor | None = None, **more) -> Tensor:
    return received.received_by_keys(attention, x_BLD, plan_of(attention, x_BLD, mask_BL), **more)


def idle_share(attention: Layer, x_BLD: Tensor) -> Tensor:
    return received.idle_share(x_BLD, plan_of(attention, x_BLD))


def dense(attention: Layer, x_LD: Tensor) -> Tensor:
    """Weights (branches, heads, queries, keys) of one softmax over the keys of all branches; 0 where a head is idle."""
    config, token = attention.config, torch.arange(len(x_LD))
    q, k = (proj(x_LD).unflatten(-1, (config.heads, -1)) for proj in (attention.q_proj, attention.k_proj))
    joined = torch.zeros(len(config.segment_lengths), config.heads, len(x_LD), len(x_LD), dtype=x_LD.dtype)
    for i, (w, r) in enumerate(config.branches):
        for head in range(config.heads):
            kept = token % min(w, len(x_LD)) % r == head // -(-config.heads // r)
            joined[i, head] += kept[:, None] & kept & (token[:, None] // w == token // w)
    weight = joined * torch.exp(torch.einsum("lhk,mhk->hlm", q, k) * q.shape[-1] ** -0.5)
    return weight / weight.sum((0, 3), keepdim=True).clamp_min(1e-300)


@given(length=st.integers(1, 50), heads=st.integers(1, 7), pairs=branches, seed=seeds)
@torch.no_grad()
def test_what_keys_receive_is_what_the_dense_weights_give_them(length, heads, pairs, seed):
    attention = Layer(heads, pairs, seed)
    x_LD, given_L = torch.randn(length, attention.config.width).double(), torch.rand(length).double()
    weights = dense(attention, x_LD)
    assert_close(received_by_keys(attention, x_LD[None])[:, 0], weights.sum(2).mT, atol=1e-5, rtol=0)
    some = received_by_keys(attention, x_LD[None], given_BL=given_L[None])[:, 0]
    assert_close(some, torch.einsum("rhij,i->rjh", weights, given_L), atol=1e-5, rtol=0)


@given(length=st.integers(1, 50), heads=st.integers(1, 7), pairs=branches, seed=seeds)
def test_queries_give_all_that_they_have_but_where_a_head_is_idle(length, heads, pairs, seed):
    attention = Layer(heads, pairs, seed)
    x_1LD, given_1L = torch.randn(1, length, attention.config.width).double(), torch.rand(1, length).double()
    arrived = received_by_keys(attention, x_1LD, given_BL=given_1L).sum(0).mean(-1)
    idle_1L = idle_share(attention, x_1LD)
    assert_close(arrived.sum() + (idle_1L * given_1L).sum(), given_1L.sum())
    every = Layer(heads, [*pairs, (7, 1)], seed)
    assert_close(received_by_keys(every, x_1LD).sum((0, 2)), torch.full((1, heads), length).double())
    assert not idle_share(every, x_1LD).any()


def test_it_is_the_gradient_of_the_values_that_the_backward_pass_gives():
    attention = Layer(4, [(16, 1), (40, 3)], seed=0, width=8).float()
    x_1LD = torch.randn(1, 100, 32)
    q, k = (proj(x_1LD).unflatten(-1, (4, -1)).detach() for proj in (attention.q_proj, attention.k_proj))
    plan = plan_of(attention, x_1LD)
    ((_, groups),) = plan.calls(4)
    out = torch.empty_like(q)
    logsumexp = attend_branches(q, k, k, groups, plan, out)
    _, _, grad_v = attend_branches_backward(torch.ones_like(q), (q, k, k, out, logsumexp), groups, plan)
    assert_close(received_by_keys(attention, x_1LD).sum(0), grad_v[..., 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 4.0, 16.0])
def test_single_precision_is_enough_where_logits_are_large(scale):
    attention = Layer(4, [(64, 1), (200, 2)], seed=1, width=24)
    attention.q_proj.weight.data *= scale / 24
    x_1LD = torch.randn(1, 300, 96).double()
    exact = received_by_keys(attention, x_1LD)
    single = received_by_keys(attention.float(), x_1LD.float())
    assert_close(single.double(), exact, atol=1e-5, rtol=2e-4)


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4), pairs=branches, seed=seeds)
def test_a_padded_batch_equals_its_slides_one_by_one(lengths, pairs, seed):
    attention = Layer(4, pairs, seed)
    x_BLD = torch.randn(len(lengths), 32, attention.config.width).double()
    mask_BL = torch.arange(32) < torch.tensor(lengths)[:, None]
    whole = received_by_keys(attention, x_BLD, mask_BL)
    for row, length in enumerate(lengths):
        alone = received_by_keys(attention, x_BLD[row : row + 1, :length])
        assert_close(whole[:, row : row + 1, :length], alone)
        assert not whole[:, row, length:].any()


def test_phantom_keys_take_no_share():
    attention = Layer(4, [(16, 1), (40, 3)], seed=0, padding="zero_keys")
    assert_close(
        received_by_keys(attention, torch.randn(1, 30, 16).double()).sum((0, 2)), torch.full((1, 4), 30.0).double()
    )


def test_what_is_given_as_nothing_arrives_nowhere():
    attention = Layer(2, [(10, 1)], seed=0)
    given = torch.zeros(1, 20).double()
    given[0, 3] = 1
    arrived = received_by_keys(attention, torch.randn(1, 20, 8).double(), given_BL=given)
    assert_close(arrived[0, 0, :10].sum(0), torch.ones(2).double())
    assert arrived[0, 0, 10:].abs().max() < 1e-300


def test_the_norm_sees_a_piece_of_the_sequence_at_a_time_and_changes_nothing():
    attention, norm, lengths = Layer(4, [(16, 1), (40, 3)], seed=0), torch.nn.LayerNorm(16).double(), []
    torch.nn.init.normal_(norm.weight)
    x_BLD = torch.randn(2, 30, 16).double()
    plan = plan_of(attention, x_BLD, tokens_at_once=7)
    expected = received_by_keys(attention, norm(x_BLD))
    norm.register_forward_hook(lambda module, arguments, normed_BLD: lengths.append(normed_BLD.shape[1]))
    assert_close(received.received_by_keys(attention, x_BLD, plan, norm=norm), expected)
    assert max(lengths) == 3  # of each of the two rows
