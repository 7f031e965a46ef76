"""One sequence on several ranks gives the numbers of one process, and moves only the kept keys of cut segments."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.explanation import attention_rollout, received_attention
from longvit.model import LongNetDecoder, LongViT
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.shares import Shares
from longvit.model.rank_group import RankGroup

BASE = {
    "width": 24,
    "heads": 6,
    "depth": 2,
    "drop_path": 0.0,
    "segment_lengths": (8, 16, 64),
    "dilation_ratios": (1, 2, 4),
}
SETTINGS = {
    "plain": {},
    "zero_keys": {"padding": "zero_keys"},
    "class token": {"class_token": True, "pooling": "class", "final_norm": "both"},
    "mean after a class token": {"class_token": True, "final_norm": "slide"},
    "ratios that do not divide": {"segment_lengths": (7, 13, 40), "dilation_ratios": (2, 3, 5)},
    "zero_keys, more ratios than heads": {
        "segment_lengths": (9, 41),
        "dilation_ratios": (1, 8),
        "padding": "zero_keys",
    },
    "heads that do not divide": {"width": 20, "heads": 5, "segment_lengths": (6, 50), "dilation_ratios": (1, 3)},
    "idle tokens": {"segment_lengths": (12,), "dilation_ratios": (3,)},
}
SHARES = {
    1: (50,),
    2: (25, 25),
    3: (1, 30, 19),  # a share of one token
    4: (16, 16, 8, 10),
    8: (3, 1, 9, 11, 2, 4, 13, 7),
}
MASK = torch.arange(50) < torch.tensor([[50], [23], [0]])  # with most shares, some are all padding
EXACT = {"atol": 1e-12, "rtol": 1e-12}


def own(x: Tensor | None, shares: tuple[int, ...], rank: int) -> Tensor | None:
    """Return a rank's share of the second axis."""
    start = sum(shares[:rank])
    return None if x is None else x[:, start : start + shares[rank]]


def outputs(build: Callable[[], nn.Module], x: Tensor, mask: Tensor | None, group: RankGroup | None) -> list[Tensor]:
    """Return tokens, whole, gradient of the input, gradients of the weights; the loss is of tokens and of the whole.

    All ranks compute the same loss, so the mean over the ranks of the gradients is the gradient of one process.
    """
    model = build()
    model.group = group
    x = x.clone().requires_grad_(x.is_floating_point())
    tokens, whole = model.encode(x, mask) if isinstance(model, LongViT) else ((y := model(x)), y.sum(1) * 0)
    of_tokens = tokens.double().cos().sum()
    loss = (of_tokens if group is None else group.sum(of_tokens)) + whole.double().sin().sum()
    loss.backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return [tokens.detach(), whole.detach(), x.grad if x.grad is not None else x, *grads]


def on_rank(group: RankGroup, build, x: Tensor, mask: Tensor | None, shares: tuple[int, ...]) -> list[Tensor]:
    return outputs(build, own(x, shares, group.rank), own(mask, shares, group.rank), group)


def assert_as_one(ranks, build, x: Tensor, mask: Tensor | None, shares: tuple[int, ...], **tolerance) -> None:
    """Check outputs and all gradients of the ranks against one process."""
    tokens, whole, grad_x, *grads = outputs(build, x, mask, None)
    found = ranks(len(shares), on_rank, build, x, mask, shares)
    assert_close(torch.cat([rank[0] for rank in found], 1), tokens, **tolerance)
    for rank in found:
        assert_close(rank[1], whole, **tolerance)
    if x.is_floating_point():
        assert_close(torch.cat([rank[2] for rank in found], 1) / len(shares), grad_x, **tolerance)
    for i, grad in enumerate(grads, start=3):
        assert_close(sum(rank[i] for rank in found) / len(shares), grad, **tolerance)


class Build:
    """Builder of a model with given settings, the same on every rank."""

    def __init__(self, dtype=torch.float64, *, narrow: torch.dtype | None = None, decoder=False, training=True, **how):
        names = ExecutionConfig.model_fields
        self.execution = ExecutionConfig(**{name: how.pop(name) for name in [*how] if name in names})
        self.config, self.dtype, self.narrow = EncoderConfig(**BASE | how), dtype, narrow or dtype
        self.decoder, self.training = decoder, training

    def __call__(self) -> nn.Module:
        torch.manual_seed(0)
        model = LongNetDecoder(self.config, 9) if self.decoder else LongViT(self.config)
        model.to(self.narrow).to(self.dtype).train(self.training)
        model.execution = self.execution
        torch.manual_seed(1)
        return model


def tokens_of(build: Build, rows: int = 3, length: int = 50) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(rows, length, build.config.width).to(build.dtype)


@pytest.mark.parametrize("count", SHARES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_outputs_and_gradients_are_those_of_one_process(ranks, count, setting):
    build = Build(**SETTINGS[setting])
    assert_as_one(ranks, build, tokens_of(build), MASK, SHARES[count], **EXACT)


@pytest.mark.parametrize("count", SHARES)
@pytest.mark.parametrize("recompute", ["all_but_attention", "blocks"])
def test_the_same_with_layers_that_are_computed_twice(ranks, count, recompute):
    build = Build(recompute=recompute, heads_at_once=2, tokens_at_once=7)
    assert_as_one(ranks, build, tokens_of(build), None, SHARES[count], **EXACT)


@pytest.mark.parametrize("count", SHARES)
@pytest.mark.parametrize("padding", ["masked", "zero_keys"])
def test_a_language_model_sees_the_symbols_of_earlier_ranks_only(ranks, count, padding):
    symbols = torch.randint(9, (2, 50), generator=torch.Generator().manual_seed(0))
    assert_as_one(ranks, Build(decoder=True, padding=padding), symbols, None, SHARES[count], **EXACT)


@pytest.mark.parametrize("count", SHARES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrower_types_round_as_much_as_in_one_process(ranks, count, dtype):
    """Deviations from float64 with the same weights, over all numbers of a tensor; twice is the noise of few sums."""
    build = Build(dtype)
    x, wide = tokens_of(build), Build(narrow=dtype)
    exact, one = outputs(wide, x.double(), MASK, None), outputs(build, x, MASK, None)
    found = ranks(count, on_rank, build, x, MASK, SHARES[count])
    shared = [torch.cat([rank[0] for rank in found], 1), found[0][1], torch.cat([rank[2] for rank in found], 1) / count]
    shared += [sum(rank[i].double() for rank in found) / count for i in range(3, len(exact))]
    for of_one, of_ranks, true in zip(one, shared, exact, strict=True):
        size, allowed = true.norm(), (of_one.double() - true).norm()
        assert (of_ranks.double() - true).norm() <= 2 * allowed + torch.finfo(dtype).eps * size


@pytest.mark.parametrize("count", SHARES)
def test_layers_are_dropped_for_the_same_slides_on_all_ranks(ranks, count):
    build = Build(drop_path=0.6, depth=6)
    assert_as_one(ranks, build, tokens_of(build), MASK, SHARES[count], **EXACT)


@st.composite
def cases(draw) -> dict[str, Any]:
    count = draw(st.sampled_from((2, 3, 4, 8)))
    shares = tuple(draw(st.lists(st.integers(1, 12), min_size=count, max_size=count)))
    branches = draw(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 9)), min_size=1, max_size=4))
    heads = draw(st.integers(1, 7))
    lengths = draw(st.lists(st.integers(0, sum(shares)), min_size=1, max_size=3))
    how = {
        "segment_lengths": tuple(length for length, _ in branches),
        "dilation_ratios": tuple(ratio for _, ratio in branches),
        "heads": heads,
        "width": 4 * heads,
        "depth": 1,
        "padding": draw(st.sampled_from(("masked", "zero_keys"))),
        "heads_at_once": draw(st.integers(1, 7)),
        "recompute": draw(st.sampled_from(("nothing", "all_but_attention"))),
        "class_token": draw(st.booleans()),
    }
    return {"shares": shares, "lengths": lengths, "how": how, "decoder": draw(st.booleans())}


@settings(max_examples=60)
@given(case=cases())
def test_any_branches_on_any_shares(ranks, case):
    shares, how = case["shares"], case["how"]
    length = sum(shares)
    if case["decoder"]:
        symbols = torch.randint(9, (1, length), generator=torch.Generator().manual_seed(0))
        assert_as_one(ranks, Build(decoder=True, **how), symbols, None, shares, **EXACT)
    else:
        build, mask = Build(**how), torch.arange(length) < torch.tensor(case["lengths"])[:, None]
        assert_as_one(ranks, build, tokens_of(build, len(mask), length), mask, shares, **EXACT)


def attention_maps(group: RankGroup | None, build: Build, x_1LD: Tensor, shares: tuple[int, ...]) -> list[Tensor]:
    model = build().eval()
    model.group = group
    x_LD = (x_1LD if group is None else own(x_1LD, shares, group.rank))[0]
    pooled_L = torch.full((len(x_LD),), 1 / x_1LD.shape[1]).double()
    of_head = received_attention(model, x_LD, head=1, branch=0)
    rolled = attention_rollout(model, x_LD), attention_rollout(model, x_LD, pooled_L)
    return [received_attention(model, x_LD), of_head, *rolled]


@pytest.mark.parametrize("count", SHARES)
@pytest.mark.parametrize("setting", ["plain", "zero_keys", "class token", "mean after a class token", "idle tokens"])
def test_attention_maps_are_those_of_one_process(ranks, count, setting):
    build = Build(**SETTINGS[setting])
    x_1LD = tokens_of(build, rows=1)
    found = ranks(count, attention_maps, build, x_1LD, SHARES[count])
    for i, expected in enumerate(attention_maps(None, build, x_1LD, ())):
        assert_close(torch.cat([rank[i] for rank in found], -1), expected, **EXACT)


class Counted:
    """Count of what `all_to_all_single` is called with: (calls, numbers sent, numbers received)."""

    def __init__(self) -> None:
        self.calls, self.sent, self.received, self._real = 0, 0, 0, dist.all_to_all_single

    def __call__(self, output: Tensor, source: Tensor, to: list[int], of: list[int], *args, **kwargs) -> object:
        assert (len(output), len(source)) == (sum(to), sum(of))
        self.calls, self.sent, self.received = self.calls + 1, self.sent + len(source), self.received + len(output)
        return self._real(output, source, to, of, *args, **kwargs)


def traffic(group: RankGroup, build: Build, x: Tensor, mask: Tensor | None, shares) -> tuple[list[tuple], int, bool]:
    """Return (calls, sent, received) of a forward and of a backward pass, and what the plan states."""
    model = build()
    model.group = group
    x, mask = own(x, shares, group.rank).requires_grad_(), own(mask, shares, group.rank)
    plan = model.plan(x, mask)
    found = []
    with patch.object(dist, "all_to_all_single", Counted()) as counted:
        slide = model.encode(x, mask).slide_BD
        found.append((counted.calls, counted.sent, counted.received))
        slide.sum().backward()
        found.append((counted.calls, counted.sent, counted.received))
    return found, plan.sent_tokens, plan.exchanges


@pytest.mark.parametrize("count", SHARES)
@pytest.mark.parametrize("heads_at_once", [2, 6])
@pytest.mark.parametrize("mask", [None, MASK])
def test_what_travels_is_what_the_plan_states(ranks, count, heads_at_once, mask):
    build = Build(heads_at_once=heads_at_once)
    found = ranks(count, traffic, build, tokens_of(build), mask, SHARES[count])
    width, depth, chunks = 4, 2, -(-6 // heads_at_once)
    for (forward, both), sent_tokens, exchanges in found:
        assert exchanges is (count > 1)
        assert forward[0] == depth * chunks * exchanges
        assert both[0] == 3 * forward[0]  # keys twice, and their gradients
        assert forward[1] == depth * 2 * width * sent_tokens
    forward, both = ([sum(n) for n in zip(*(rank[0][i] for rank in found), strict=True)] for i in (0, 1))
    assert forward[1] == forward[2]
    assert both[1] == 3 * forward[1]


def plan_of(config: EncoderConfig, shares: list[int], rank: int) -> AttentionPlan:
    borders = (0, *accumulate(shares))
    return AttentionPlan.of(config, (borders[-1],), shares=Shares(borders, rank))


@pytest.mark.parametrize("count", [2, 4, 8, 64])
def test_a_branch_moves_its_kept_tokens_once_to_every_other_rank_of_the_segment(count):
    """Of a segment of w tokens on w / l ranks, a rank sends l / r of the tokens per head to w / l - 1 ranks."""
    share, heads = 64, 8
    for length, ratio in ((32, 1), (64, 1), (128, 2), (256, 4), (64 * 64, 8)):
        config = EncoderConfig(width=32, heads=heads, segment_lengths=(length,), dilation_ratios=(ratio,))
        others = min(length, share * count) // share - 1
        sent = {plan_of(config, [share] * count, rank).sent_tokens for rank in range(count)}
        assert sent == {heads * share // ratio * max(0, others)}


def test_per_token_the_traffic_of_a_branch_does_not_grow_with_the_sequence():
    """Branches are added as the sequence grows; w / r is constant, as in the paper, and so is what a branch moves."""
    share, heads, per_branch = 64, 8, []
    for count in (2, 4, 8, 16, 32, 64):
        lengths = [share * 2**i for i in range(count.bit_length())]
        ratios = [2**i for i in range(count.bit_length())]
        config = EncoderConfig(width=32, heads=heads, segment_lengths=tuple(lengths), dilation_ratios=tuple(ratios))
        sent = plan_of(config, [share] * count, count // 2).sent_tokens
        per_branch.append(sent / share / heads / (count.bit_length() - 1))
    assert max(per_branch) < 1.0  # at most one kept token per token, head and branch that crosses
    assert per_branch == sorted(per_branch)
    fixed = EncoderConfig(width=32, heads=heads, segment_lengths=(64, 256, 1024), dilation_ratios=(1, 4, 16))
    assert len({plan_of(fixed, [share] * count, count // 2).sent_tokens for count in (16, 32, 64, 128)}) == 1


def test_branches_within_a_share_move_nothing(ranks):
    build = Build(segment_lengths=(5, 25), dilation_ratios=(1, 2))
    found = ranks(2, traffic, build, tokens_of(build), None, SHARES[2])
    assert [rank[0] for rank in found] == [[(0, 0, 0)] * 2] * 2
    assert not any(rank[2] for rank in found)


def refused(group: RankGroup, mask_BL: Tensor, shares: tuple[int, ...]) -> str:
    model = Build()()
    model.group = group
    mask = own(mask_BL, shares, group.rank)
    with pytest.raises(ValueError, match="padding before a real token") as error:
        model.encode(torch.zeros(*mask.shape, 24).double(), mask)
    return str(error.value)


@pytest.mark.parametrize("hole", [0, 2, 4])
def test_padding_before_a_real_token_is_refused_on_every_rank(ranks, hole):
    mask_BL = torch.ones(2, 6, dtype=torch.bool)
    mask_BL[1, hole] = False
    assert len(set(ranks(3, refused, mask_BL, (2, 2, 2)))) == 1
