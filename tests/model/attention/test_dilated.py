from collections.abc import Sequence
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from longvit.model.attention.dilated import dilated_attention
from longvit.model.kernels import registry as backends
from longvit.model.kernels.registry import FLASH_CPU, MATH

BACKENDS = pytest.mark.parametrize("backend", [FLASH_CPU, MATH], ids=["flash_cpu", "math"])
seeds = st.integers(0, 2**31)
paddings = st.sampled_from(["masked", "zero_keys"])
# Segments and ratios that neither divide each other nor the sequence, longer ones than it included.
branches = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=3)


def through(backend):
    return patch.object(backends, "BACKENDS", (backend,))


def qkv(batch: int, length: int, heads: int, width: int, seed: int, dtype=torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, length, heads, width)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]


def dense_oracle(
    q: Tensor, k: Tensor, v: Tensor, segment_lengths: Sequence[int], dilation_ratios: Sequence[int], padding: str
) -> Tensor:
    """One softmax over the keys of all branches, by counting for every head and pair how many branches join them."""
    _, length, heads, width = q.shape
    token = torch.arange(length)
    joined, phantoms = torch.zeros(heads, length, length), torch.zeros(heads, length)
    for w, r in zip(segment_lengths, dilation_ratios, strict=True):
        w = min(w, length)
        for head in range(heads):
            kept = token % w % r == head // -(-heads // r)
            pairs = kept[:, None] & kept & (token[:, None] // w == token // w)
            joined[head] += pairs
            phantoms[head] += (-(-w // r) - pairs.sum(1)) * kept
    weight = joined * torch.exp(torch.einsum("blhk,bmhk->bhlm", q, k) * width**-0.5)
    total = weight.sum(-1) + (phantoms if padding == "zero_keys" else 0)
    return torch.einsum("bhlm,bmhk->blhk", weight, v) / total.clamp(min=1e-300).mT[..., None]


def gradients(out: Tensor, inputs: list[Tensor], seed: int) -> tuple[Tensor, ...]:
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.autograd.grad(out, inputs, cotangent.to(out.dtype))


@BACKENDS
@given(length=st.integers(1, 50), heads=st.integers(1, 7), pairs=branches, padding=paddings, seed=seeds)
def test_outputs_and_gradients_are_those_of_one_dense_softmax(backend, length, heads, pairs, padding, seed):
    lengths, ratios = zip(*pairs, strict=True)
    inputs = qkv(2, length, heads, 3, seed)
    with through(backend):
        out = dilated_attention(*inputs, lengths, ratios, padding=padding)
        grads = gradients(out, inputs, seed)
    expected = dense_oracle(*inputs, lengths, ratios, padding)
    assert_close(out, expected)
    assert_close(grads, gradients(expected, inputs, seed))


@BACKENDS
@given(length=st.integers(1, 40), heads=st.integers(1, 4), longer=st.integers(0, 9), seed=seeds)
def test_one_branch_covering_everything_is_full_attention(backend, length, heads, longer, seed):
    q, k, v = qkv(2, length, heads, 8, seed)
    full = torch.nn.functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    with through(backend):
        assert_close(dilated_attention(q, k, v, [length + longer], [1]), full.transpose(1, 2))


@given(segments=st.integers(2, 4), longest=st.integers(1, 12), ratio=st.integers(1, 4), padding=paddings, seed=seeds)
def test_a_token_never_sees_another_segment(segments, longest, ratio, padding, seed):
    inputs = qkv(1, segments * longest, 4, 4, seed)
    out = dilated_attention(*inputs, [longest, longest], [1, ratio], padding=padding)
    inside = slice(longest, 2 * longest)
    for grad in torch.autograd.grad(out[:, inside].square().sum(), inputs):
        assert not grad[:, : inside.start].any()
        assert not grad[:, inside.stop :].any()


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4), pairs=branches, padding=paddings, seed=seeds)
def test_a_padded_batch_equals_its_slides_one_by_one(lengths, pairs, padding, seed):
    inputs = qkv(len(lengths), 32, 4, 4, seed)
    mask = torch.arange(32) < torch.tensor(lengths)[:, None]
    settings = tuple(zip(*pairs, strict=True))
    out = dilated_attention(*inputs, *settings, padding=padding, mask_BL=mask)
    grads = gradients(out, inputs, seed)
    for row, length in enumerate(lengths):
        alone = [x.detach()[row : row + 1, :length].requires_grad_() for x in inputs]
        assert_close(out[row : row + 1, :length], dilated_attention(*alone, *settings, padding=padding))
        assert not out[row, length:].any()
        assert not any(grad[row, length:].any() for grad in grads)


@given(
    length=st.integers(1, 31), garbage=st.sampled_from([1e30, float("inf"), float("nan")]), pairs=branches, seed=seeds
)
def test_padding_never_changes_a_real_token(length, garbage, pairs, seed):
    inputs = [x.detach() for x in qkv(2, 32, 4, 4, seed)]
    mask = torch.arange(32).expand(2, -1) < length
    settings = tuple(zip(*pairs, strict=True))
    spoilt = [x.masked_fill(~mask[..., None, None], garbage) for x in inputs]
    out, expected = (dilated_attention(*x, *settings, mask_BL=mask) for x in (spoilt, inputs))
    assert torch.equal(out, expected)


@BACKENDS
@pytest.mark.parametrize("padding", ["masked", "zero_keys"])
def test_the_gradient_is_that_of_finite_differences(backend, padding):
    inputs = qkv(1, 13, 3, 2, seed=0)
    with through(backend):
        assert torch.autograd.gradcheck(lambda *x: dilated_attention(*x, [4, 8], [1, 3], padding=padding), inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize("width", [8, 24])
def test_the_flash_kernel_and_plain_math_agree_in_working_precision(dtype, tolerance, width):
    results = []
    for backend in (FLASH_CPU, MATH):
        inputs = qkv(2, 300, 16, width, seed=1, dtype=dtype)
        with through(backend):
            out = dilated_attention(*inputs, [64, 128, 256], [1, 2, 4])
            results.append([out, *gradients(out, inputs, seed=2)])
    assert all(x.dtype == dtype for x in results[0])
    assert_close(*results, rtol=tolerance, atol=tolerance)


def test_positions_that_no_branch_covers_are_zero():
    inputs = qkv(1, 12, 4, 4, seed=0)
    out = dilated_attention(*inputs, [6], [2])
    covered = out.ne(0).any(-1)[0]
    assert covered[0::2].tolist() == [[True, True, False, False]] * 6
    assert covered[1::2].tolist() == [[False, False, True, True]] * 6


def test_a_slide_without_tokens_has_no_output():
    assert dilated_attention(*qkv(2, 0, 4, 4, seed=0), [6], [2]).shape == (2, 0, 4, 4)


def test_padding_before_a_real_token_is_refused():
    mask = torch.tensor([[True, False, True]])
    with pytest.raises(ValueError, match="padding before a real token"):
        dilated_attention(*qkv(1, 3, 2, 4, seed=0), [3], [1], mask_BL=mask)


def test_every_branch_needs_a_segment_and_a_ratio():
    with pytest.raises(ValueError, match="zip"):
        dilated_attention(*qkv(1, 3, 2, 4, seed=0), [3, 3], [1])


def test_a_second_derivative_is_refused_rather_than_wrong():
    inputs = qkv(1, 4, 2, 4, seed=0)
    grad = torch.autograd.grad(dilated_attention(*inputs, [4], [1]).square().sum(), inputs, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
