"""Law: causal dilated attention is that of a masked dense oracle, and so is the decoder built on it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.model.attention.dilated import dilated_attention
from longvit.model.decoder import LongNetDecoder

branches = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=3)


def oracle(q: Tensor, k: Tensor, v: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """One softmax over the keys up to each query that the branches join to it, as often as they do."""
    _, length, heads, width = q.shape
    token = torch.arange(length)
    joined = torch.zeros(heads, length, length)
    for w, r in pairs:
        span = min(w, length)
        for head in range(heads):
            kept = token % span % r == head // -(-heads // r)
            joined[head] += kept[:, None] & kept & (token[:, None] // span == token // span)
    weight = joined.tril() * torch.exp(torch.einsum("blhk,bmhk->bhlm", q, k) * width**-0.5)
    return torch.einsum("bhlm,bmhk->blhk", weight, v) / weight.sum(-1).clamp(min=1e-300).mT[..., None]


def qkv(shape: tuple[int, ...], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


@given(
    length=st.integers(1, 50),
    heads=st.integers(1, 7),
    pairs=branches,
    padding=st.sampled_from(["masked", "zero_keys"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60)
def test_outputs_and_gradients_are_those_of_a_masked_dense_softmax(length, heads, pairs, padding, seed):
    inputs = qkv((2, length, heads, 3), seed)
    out = dilated_attention(*inputs, *zip(*pairs, strict=True), padding=padding, causal=True)
    expected = oracle(*inputs, pairs)
    assert_close(out, expected)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_close(torch.autograd.grad(out, inputs, cotangent), torch.autograd.grad(expected, inputs, cotangent))


def decoder(**changes) -> LongNetDecoder:
    settings = {"width": 32, "depth": 2, "heads": 4, "segment_lengths": (8, 16, 64), "dilation_ratios": (1, 2, 4)}
    return LongNetDecoder(EncoderConfig(**settings | {"drop_path": 0.0} | changes), vocabulary=11)


@given(at=st.integers(0, 39), seed=st.integers(0, 2**31))
@settings(max_examples=20)
def test_no_symbol_sees_the_future(at, seed):
    torch.manual_seed(seed)
    model, symbols = decoder(), torch.randint(11, (1, 40))
    changed = symbols.clone()
    changed[:, at] = (symbols[:, at] + 1) % 11
    with torch.no_grad():
        before, after = model(symbols), model(changed)
    assert_close(after[:, :at], before[:, :at])
    assert not torch.allclose(after[:, at:], before[:, at:])


def test_a_decoder_learns_a_sequence_by_heart():
    torch.manual_seed(0)
    model, symbols = decoder(), torch.randint(11, (1, 33))
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        loss = cross_entropy(model(symbols[:, :-1]).flatten(0, 1), symbols[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1
    assert model(symbols[:, :-1]).argmax(-1).equal(symbols[:, 1:])


@pytest.mark.parametrize("recompute", ["all_but_attention", "blocks"])
def test_a_decoder_that_recomputes_has_the_same_gradients(recompute):
    symbols, results = torch.randint(11, (2, 40), generator=torch.Generator().manual_seed(0)), []
    for how in ("nothing", recompute):
        torch.manual_seed(0)
        model = decoder()
        model.execution = ExecutionConfig(recompute=how, tokens_at_once=16, heads_at_once=3)
        model(symbols).square().sum().backward()
        results.append({name: weight.grad for name, weight in model.named_parameters()})
    assert_close(*results, rtol=1e-4, atol=1e-5)
