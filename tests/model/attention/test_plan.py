"""The plan is made once per forward pass, asks the device once, and says what is computed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import longvit
from longvit.config import EncoderConfig, ExecutionConfig
from longvit.explanation import attention_rollout, received_attention
from longvit.model import LongNetDecoder, LongViT
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.shares import row_lengths

SETTINGS = {"width": 32, "depth": 5, "heads": 4, "segment_lengths": (8, 16, 64), "dilation_ratios": (1, 2, 4)}
MODES = ["nothing", "all_but_attention", "blocks"]
MASK = torch.arange(40) < torch.tensor([[40], [23]])


def encoder(**changes) -> LongViT:
    torch.manual_seed(0)
    return LongViT(EncoderConfig(**SETTINGS | changes))


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The names of all calls that bring numbers of a tensor to Python, for which an accelerator is waited for."""
    calls = []

    def counted(name: str, method: Callable) -> Callable:
        def call(self: Tensor, *args, **kwargs):
            calls.append(name)
            return method(self, *args, **kwargs)

        return call

    for name in ("tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(Tensor, name, counted(name, getattr(Tensor, name)))
    return calls


@pytest.fixture
def made(monkeypatch) -> list[AttentionPlan]:
    """All plans that are made."""
    plans, make = [], AttentionPlan.__init__

    def remembered(self, *args, **kwargs) -> None:
        make(self, *args, **kwargs)
        plans.append(self)

    monkeypatch.setattr(AttentionPlan, "__init__", remembered)
    return plans


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("class_token", [False, True])
def test_the_device_is_asked_for_the_rows_lengths_once_for_all_layers_and_the_backward_pass(mode, class_token, asked):
    model, x = encoder(class_token=class_token), torch.randn(2, 40, 32)
    model.execution = ExecutionConfig(recompute=mode)
    slide = model.encode(x, MASK).slide_BD
    assert asked == ["tolist"]
    slide.sum().backward()
    assert asked == ["tolist"]
    with torch.inference_mode():
        model.eval().encode(x, MASK, overwrite=True)
    assert asked == ["tolist", "tolist"]


def test_the_count_of_what_is_asked_sees_a_layer_that_asks(asked):
    model, lengths = encoder(), []
    for layer in model.encoder.layers:
        layer.register_forward_pre_hook(lambda module, inputs: lengths.append(row_lengths(inputs[0], MASK)))
    model.encode(torch.randn(2, 40, 32), MASK)
    assert asked == ["tolist"] * 6


@pytest.mark.parametrize("mask", [None, MASK])
def test_every_layer_takes_one_plan(mask, made):
    model, taken = encoder(), []
    for layer in model.encoder.layers:
        layer.self_attn.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[1]))
    model.encode(torch.randn(2, 40, 32), mask)
    assert len(made) == 1
    assert len(taken) == 5
    assert all(plan is made[0] for plan in taken)
    assert made[0].lengths == ((40, 40) if mask is None else (40, 23))


@pytest.mark.parametrize("method", [received_attention, attention_rollout])
def test_an_explanation_makes_one_plan(method, made):
    method(encoder().eval(), torch.randn(40, 32))
    assert len(made) == 1


def test_a_decoder_makes_one_plan_and_it_is_causal(made):
    LongNetDecoder(EncoderConfig(**SETTINGS, padding="zero_keys"), 7)(torch.randint(7, (2, 30)))
    assert [(plan.causal, plan.phantoms) for plan in made] == [(True, False)]


@pytest.mark.parametrize(
    ("padding", "causal", "phantoms"),
    [("masked", False, False), ("masked", True, False), ("zero_keys", False, True), ("zero_keys", True, False)],
)
def test_phantom_keys_fill_short_segments_where_they_are_asked_for_and_no_future(padding, causal, phantoms):
    plan = AttentionPlan.of(EncoderConfig(**SETTINGS, padding=padding), (27,), causal=causal)
    assert plan.phantoms is phantoms
    filled = [group.phantoms for _, groups in plan.calls() for group in groups]
    assert any(filled) is phantoms


@pytest.mark.parametrize(
    ("rule", "place"),
    [(r"zip\([^)]*segment_lengths", "config/encoder.py"), (r"== \"zero_keys\"", "model/attention/plan.py")],
    ids=["pairs of segments and ratios", "phantom keys"],
)
def test_a_rule_of_branches_is_written_once(rule, place):
    package = Path(longvit.__file__).parent
    found = [path for path in package.rglob("*.py") if re.search(rule, path.read_text(encoding="utf-8"))]
    assert [path.relative_to(package).as_posix() for path in found] == [place]


pairs = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=3)


def plan_of(lengths, heads: int, branches, **how) -> AttentionPlan:
    return AttentionPlan(
        tuple(lengths), heads, tuple(branches), "masked", causal=False, execution=ExecutionConfig(**how)
    )


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    heads=st.integers(1, 7),
    branches=pairs,
    at_once=st.integers(1, 7),
)
def test_the_calls_of_a_branch_take_each_of_its_tokens_once(lengths, heads, branches, at_once):
    taken = torch.zeros(len(branches), len(lengths), 60, heads)
    for chunk, groups in plan_of(lengths, heads, branches, heads_at_once=at_once).calls():
        assert chunk.stop - chunk.start <= at_once
        for group in groups:
            group.view(taken[group.branch, :, :, chunk]).add_(1)
    token = torch.arange(60)
    for branch, (w, r) in enumerate(branches):
        for row, length in enumerate(lengths):
            for head in range(heads):
                kept = token % max(1, min(w, length)) % r == head // -(-heads // r)
                assert torch.equal(taken[branch, row, :, head], (kept & (token < length)).float())


@given(branches=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 4])), min_size=1), rows=st.integers(1, 3))
def test_the_keys_that_a_query_meets_are_those_of_the_calls_where_all_divide(branches, rows):
    plan = plan_of(
        [960] * rows,
        4,
        [(16 * segment * ratio, ratio) for segment, ratio in branches if 960 % (16 * segment * ratio) == 0],
    )
    met = 0
    for _, groups in plan.calls():
        for group in groups:
            q = group.take(torch.zeros(rows, 960, 4, 1)[:, :, : plan.execution.heads_at_once])
            met += q.shape[0] * q.shape[1] * q.shape[2] ** 2
    assert plan.keys_per_query == met / (rows * 960 * 4)


def test_a_segment_has_no_more_keys_than_the_slide_and_no_slide_costs_nothing():
    assert plan_of([100], 4, [(1000, 1), (64, 2)]).keys_per_query == 100 + 16
    assert plan_of([], 4, [(64, 1)]).keys_per_query == plan_of([0], 4, [(64, 1)]).keys_per_query == 0


def test_plans_of_the_same_slides_share_their_calls():
    one, other = (plan_of([50, 30], 4, [(16, 1)]) for _ in range(2))
    assert one.calls() is other.calls()
    assert len(one.calls()) == 1
    assert len(one.calls(1)) == 4


@pytest.mark.parametrize("rows", [[[True, False, True]], [[True, True, True], [False, True, False]]])
def test_padding_before_a_real_token_is_refused(rows):
    with pytest.raises(ValueError, match="padding before a real token"):
        row_lengths(torch.zeros(len(rows), 3, 4), torch.tensor(rows))


def test_rows_may_be_of_any_length():
    x, mask = torch.zeros(3, 4, 8), torch.tensor([[True] * 4, [True, False, False, False], [False] * 4])
    assert row_lengths(x, mask) == (4, 1, 0)
    assert row_lengths(x, None) == (4, 4, 4)
    assert row_lengths(x[:0], mask[:0]) == row_lengths(x[:0], None) == ()
    assert row_lengths(x[:, :0], mask[:, :0]) == (0, 0, 0)
