import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from longvit.model.pooling import GatedAttention, mean_pool


@pytest.fixture
def attention() -> GatedAttention:
    """An attention with weights in every part."""
    torch.manual_seed(0)
    attention = GatedAttention(6, hidden=5)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    return attention


def test_weights_are_those_of_the_paper(attention):
    # Ilse et al. 2018, equation 9, with a loop over the tokens.
    tokens = torch.randn(4, 6)
    attention.standardise_by(torch.full((6,), 2.0), torch.full((6,), 3.0))
    scores = []
    for token in (tokens - 2) / 3:
        content = torch.tanh(attention.content.weight @ token + attention.content.bias)
        gate = torch.sigmoid(attention.gate.weight @ token + attention.gate.bias)
        scores.append((attention.score.weight[0] * content * gate).sum())
    shares = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
    assert_close(attention.weights(tokens[None])[0], shares)
    assert_close(attention(tokens[None])[0], (shares[:, None] * tokens).sum(dim=0))


def test_an_untrained_attention_is_the_mean():
    tokens, mask = torch.randn(2, 7, 6), torch.arange(7) < torch.tensor([[7], [3]])
    assert_close(GatedAttention(6)(tokens, mask), mean_pool(tokens, mask))


@given(seed=st.integers(0, 999), padding=st.integers(0, 9))
def test_weights_sum_to_1_and_padding_has_none(seed, padding):
    torch.manual_seed(seed)
    attention, tokens = GatedAttention(6), torch.randn(1, 5, 6)
    torch.nn.init.normal_(attention.score.weight)
    padded = torch.nn.functional.pad(tokens, (0, 0, 0, padding), value=9.0)
    mask = (torch.arange(5 + padding) < 5)[None]
    weights = attention.weights(padded, mask)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert weights[0, 5:].eq(0).all()
    assert_close(attention(padded, mask), attention(tokens))


def test_the_order_of_tokens_does_not_matter(attention):
    tokens, order = torch.randn(1, 9, 6), torch.randperm(9)
    assert_close(attention(tokens[:, order]), attention(tokens))
    assert_close(attention.weights(tokens[:, order]), attention.weights(tokens)[:, order])


def test_attention_learns_to_look_at_the_one_token_that_speaks_for_a_class():
    torch.manual_seed(0)
    attention, head = GatedAttention(4, hidden=8), torch.nn.Linear(4, 1)
    optimiser = torch.optim.Adam([*attention.parameters(), *head.parameters()], 0.05)
    tokens = torch.randn(32, 50, 4) * 0.3
    label = (torch.arange(32) % 2).float()
    tokens[label == 1, 7] = torch.tensor([3.0, 0.0, 0.0, 0.0])
    for _ in range(100):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(attention(tokens))[:, 0], label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05
    assert attention.weights(tokens)[label == 1, 7].min() > 0.9


def test_sums_are_in_float32_for_narrow_tokens(attention):
    tokens = torch.randn(1, 5, 6).bfloat16()
    assert attention(tokens.float()).dtype == torch.float32
    assert attention.bfloat16()(tokens).dtype == torch.float32
