"""What is done in pieces, a few heads at a time, or twice, gives the numbers of what is done at once."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from longvit.config import EmbeddingInput, EncoderConfig, ExecutionConfig
from longvit.model.attention.dilated import dilated_attention
from longvit.model.attention.layer import DilatedSelfAttention
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.recompute import in_pieces
from longvit.model.attention.shares import row_lengths
from longvit.model.encoder import Encoder, LongViT
from longvit.tokens.batch import TokenBatch

BASE = EncoderConfig(
    width=32,
    depth=2,
    heads=8,
    segment_lengths=(16, 32, 100),
    dilation_ratios=(1, 2, 3),
    dropout=0.2,
    drop_path=0.5,
)
MODES = ["nothing", "all_but_attention", "blocks"]


def plan_of(x, mask=None, **how) -> AttentionPlan:
    return AttentionPlan.of(BASE, row_lengths(x, mask), ExecutionConfig(**how))


def trained(*, dtype=torch.float64, autocast: bool = False, frozen: bool = False, **how):
    """Output and gradients of an encoder in training, on two slides of different lengths."""
    torch.manual_seed(0)
    encoder = Encoder(BASE).to(dtype)
    encoder.layers[0].self_attn.q_proj.requires_grad_(not frozen)
    x = torch.randn(2, 70, BASE.width, dtype=dtype, requires_grad=True)
    mask = torch.arange(70) < torch.tensor([[70], [41]])
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = encoder(x, plan_of(x, mask, **how))
    out = out.masked_fill(~mask[..., None], 0)
    out.float().square().mean().backward()
    return {"out": out, "x": x.grad, **{name: w.grad for name, w in encoder.named_parameters() if w.grad is not None}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("heads", "tokens"), [(8, 4096), (3, 20), (1, 7)])
def test_recomputing_in_pieces_changes_no_output_and_no_gradient(mode, heads, tokens):
    assert_close(trained(recompute=mode, heads_at_once=heads, tokens_at_once=tokens), trained())


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_of_the_caller_changes_nothing(mode):
    encoder, x, found = Encoder(BASE).double().eval(), torch.randn(1, 70, 32).double(), []
    for run in (encoder, partial(checkpoint, encoder, use_reentrant=False)):
        out = run(x, plan_of(x, recompute=mode))
        found.append(torch.autograd.grad(out.square().sum(), list(encoder.parameters())))
    assert_close(*found)


@pytest.mark.parametrize("mode", MODES)
def test_training_under_autocast_stays_near_float32(mode):
    how = {"recompute": mode, "heads_at_once": 3, "tokens_at_once": 20}
    found, exact = trained(dtype=torch.float32, autocast=True, **how), trained(dtype=torch.float32, **how)
    assert all(x.dtype == torch.float32 for x in found.values())
    for name, x in found.items():
        if not name.endswith("k_proj.bias"):  # a softmax ignores what all of its logits share: rounding alone
            assert (x - exact[name]).norm() < 0.03 * exact[name].norm(), name


def test_recomputing_under_autocast_rounds_as_keeping_does():
    pieces = {"heads_at_once": 3, "tokens_at_once": 20}
    kept, *others = (trained(dtype=torch.float32, autocast=True, recompute=mode, **pieces)["out"] for mode in MODES)
    for out in others:
        assert (out - kept).norm() < 1e-3 * kept.norm()


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_frozen_projection_gets_no_gradient_and_disturbs_no_other(mode):
    found = trained(recompute=mode, frozen=True)
    assert "layers.0.self_attn.q_proj.weight" not in found
    expected = trained()
    assert_close(found, {name: expected[name] for name in found})


@pytest.mark.parametrize("tokens", [7, 4096])
def test_without_gradients_the_numbers_are_the_same(tokens):
    torch.manual_seed(0)
    encoder = Encoder(BASE).double().eval()
    x = torch.randn(2, 70, 32, dtype=torch.float64)
    kept = x.clone()
    with torch.no_grad():
        found = encoder(x, plan_of(x, tokens_at_once=tokens))
    assert torch.equal(x, kept)
    assert_close(found, encoder(x, plan_of(x)).detach())


@given(heads=st.integers(1, 7), at_once=st.integers(1, 7), ratio=st.integers(1, 6), seed=st.integers(0, 2**31))
@settings(max_examples=40)
def test_heads_may_be_computed_together_or_apart(heads, at_once, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(1, 37, heads, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    results = []
    for count in (heads, at_once):
        out = dilated_attention(*inputs, [10, 37], [1, ratio], heads_at_once=count)
        results.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    assert_close(*results)


def test_a_norm_given_to_attention_is_a_norm_before_it():
    attention, norm, x = DilatedSelfAttention(BASE), torch.nn.LayerNorm(32), torch.randn(1, 50, 32)
    torch.nn.init.normal_(norm.weight)
    expected = attention(norm(x), plan_of(x)).detach()
    with torch.no_grad():
        assert_close(attention(x, plan_of(x), norm=norm), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recompute", [False, True])
def test_pieces_are_no_longer_than_asked(recompute):
    lengths = []

    def doubled(x):
        lengths.append(x.shape[1])
        return 2 * x

    x = torch.randn(2, 50, 4, requires_grad=recompute)
    with torch.set_grad_enabled(recompute):
        assert torch.equal(in_pieces(doubled, x, 24, recompute=recompute), 2 * x)
    assert sum(lengths) == 50
    assert max(lengths) == 12  # two slides side by side


def test_an_empty_batch_of_slides_needs_no_pieces():
    config = BASE.model_copy(update={"input": EmbeddingInput(encoder="uni", dim=16)})
    batch = TokenBatch(torch.randn(1, 0, 16), torch.zeros(1, 0, 2, dtype=torch.int64), torch.ones(1, 0).bool())
    with torch.no_grad():
        assert LongViT(config).eval().embed(batch).shape == (1, 0, 32)
        empty = torch.randn(1, 0, 32)
        assert Encoder(config).eval()(empty, plan_of(empty)).shape == (1, 0, 32)
