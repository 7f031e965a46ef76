import weakref

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from longvit.config import EncoderConfig
from longvit.explanation import attention_rollout, received_attention
from longvit.model import LongViT
from longvit.model.attention.layer import DilatedSelfAttention
from longvit.model.attention.received import idle_share, received_by_keys

LENGTH = 45


def encoder(**changes) -> LongViT:
    torch.manual_seed(0)
    settings = {"width": 20, "depth": 3, "heads": 5, "segment_lengths": (10, 17, 60), "dilation_ratios": (1, 2, 4)}
    built = LongViT(EncoderConfig(**settings | changes)).double().eval()
    for name, weight in built.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            torch.nn.init.normal_(weight, std=1.0)
    return built


def dense(attention: DilatedSelfAttention, config: EncoderConfig, x_MD: Tensor) -> Tensor:
    """Weights (branches, heads, queries, keys), and for an idle head all of a token's weight on itself, in branch 0."""
    token = torch.arange(len(x_MD))
    q, k = (proj(x_MD).unflatten(-1, (config.heads, -1)) for proj in (attention.q_proj, attention.k_proj))
    joined = torch.zeros(len(config.segment_lengths), config.heads, len(x_MD), len(x_MD)).double()
    for i, (w, r) in enumerate(config.branches):
        for head in range(config.heads):
            kept = token % min(w, len(x_MD)) % r == head // -(-config.heads // r)
            joined[i, head] += kept[:, None] & kept & (token[:, None] // w == token // w)
    weight = joined * torch.exp(torch.einsum("lhk,mhk->hlm", q, k) * q.shape[-1] ** -0.5)
    total = weight.sum((0, 3))
    weight = weight / total.clamp_min(1e-300)[None, :, :, None]
    weight[0] += torch.diag_embed((total == 0).double())
    return weight


def dense_layers(model: LongViT, x_LD: Tensor) -> list[Tensor]:
    x_1MD = x_LD[None] if model.class_token is None else model.class_token(x_LD[None], None)[0]
    found = []
    for block in model.encoder.layers:
        found.append(dense(block.self_attn, model.config, block.self_attn_layer_norm(x_1MD)[0]))
        x_1MD = block(x_1MD, model.plan(x_1MD))
    return found


@pytest.fixture
def x_LD() -> Tensor:
    return torch.randn(LENGTH, 20, generator=torch.Generator().manual_seed(1)).double()


@torch.no_grad()
def test_received_attention_is_the_sum_of_the_dense_columns(x_LD):
    model = encoder()
    layers = torch.stack(dense_layers(model, x_LD)).sum(3)  # (layers, branches, heads, keys)
    assert_close(received_attention(model, x_LD), layers.sum(1).mean(1), atol=1e-5, rtol=0)
    assert_close(received_attention(model, x_LD, head=3), layers.sum(1)[:, 3], atol=1e-5, rtol=0)
    assert_close(received_attention(model, x_LD, branch=1), layers[:, 1].mean(1), atol=1e-5, rtol=0)
    assert_close(received_attention(model, x_LD, head=0, branch=2), layers[:, 2, 0], atol=1e-5, rtol=0)


def test_in_each_layer_and_head_the_tokens_receive_as_much_as_there_are_tokens(x_LD):
    for head in (None, 0, 4):
        received = received_attention(encoder(), x_LD, head=head)
        assert received.shape == (3, LENGTH)
        assert_close(received.sum(1), torch.full((3,), LENGTH).double())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"segment_lengths": (12, 60), "dilation_ratios": (2, 4)},  # heads that look nowhere from some tokens
        {"class_token": True, "pooling": "class"},
        {"class_token": True},
        {"padding": "zero_keys", "final_norm": "both"},
    ],
    ids=["mean", "idle heads", "class pooling", "class token, mean pooling", "phantom keys"],
)
@torch.no_grad()
def test_rollout_is_the_product_of_the_dense_layers(x_LD, changes):
    model = encoder(**changes)
    first = int(model.class_token is not None)
    share = torch.zeros(first + LENGTH).double()
    if model.pooling.by_class:
        share[0] = 1
    else:
        share[first:] = 1 / LENGTH
    for weights in reversed(dense_layers(model, x_LD)):
        share = share @ (weights.sum(0).mean(0) + torch.eye(len(share))) / 2
    rollout = attention_rollout(model, x_LD)
    assert_close(rollout, share[first:], atol=1e-5, rtol=0)
    assert_close(share.sum(), torch.tensor(1.0).double())
    assert rollout.sum() < 1 - 1e-4 if first else abs(rollout.sum() - 1) < 1e-12


def test_rollout_starts_from_the_weights_of_attention_pooling(x_LD):
    model, pooled_L = encoder(), torch.zeros(LENGTH).double()
    pooled_L[[4, 40]] = torch.tensor([0.7, 0.3]).double()
    first, last = (attention_rollout(model, x_LD, torch.eye(LENGTH).double()[token]) for token in (4, 40))
    assert first[4] >= 0.5**3  # half of it stays in place in each layer
    assert_close(attention_rollout(model, x_LD, pooled_L), 0.7 * first + 0.3 * last)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 12, 13])
@torch.no_grad()
def test_tokens_that_are_computed_again_give_the_bits_of_tokens_that_were_kept(x_LD, depth):
    model = encoder(depth=depth)
    kept, plan = [x_LD[None]], model.plan(x_LD[None])
    for block in model.encoder.layers[:-1]:
        kept.append(block(kept[-1], plan))
    share_1L = torch.full((1, LENGTH), 1 / LENGTH, dtype=torch.float64)
    for block, x_1LD in zip(reversed(model.encoder.layers), reversed(kept), strict=True):
        normed_1LD = block.self_attn_layer_norm(x_1LD)
        moved_1L = received_by_keys(block.self_attn, normed_1LD, plan, given_BL=share_1L).sum(0).mean(-1)
        share_1L = (share_1L * (1 + idle_share(x_1LD, plan)) + moved_1L) / 2
    assert torch.equal(attention_rollout(model, x_LD), share_1L[0])


@pytest.mark.parametrize(("function", "depth", "most"), [(attention_rollout, 24, 6), (received_attention, 8, 2)])
def test_few_layers_tokens_are_there_at_a_time(x_LD, function, depth, most):
    model, made, alive = encoder(depth=depth), [], []

    def count(block, arguments, tokens_1LD) -> None:
        made.append(weakref.ref(tokens_1LD))
        alive.append(sum(one() is not None for one in made))

    for block in model.encoder.layers:
        block.register_forward_hook(count)
    function(model, x_LD)
    assert len(alive) >= depth - 1
    assert max(alive) <= most
