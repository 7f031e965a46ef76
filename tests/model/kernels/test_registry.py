"""Every way to compute the primitive against plain math, and the choice among them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from longvit.model.kernels import math as plain
from longvit.model.kernels.registry import BACKENDS, MATH, TensorKind, attend, attend_backward, choose, kind_of

CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
MPS = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 6e-2}
causals = st.booleans()


def qkv(shape: tuple[int, ...], seed: int, dtype=torch.float64, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]


def visible(length: int, causal: bool) -> Tensor:
    return torch.ones(length, length).tril().bool() if causal else torch.ones(length, length).bool()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TensorKind("cpu", (0, 0), torch.float32, 24), "flash_cpu"),
        (TensorKind("cpu", (0, 0), torch.bfloat16, 23), "flash_cpu"),
        (TensorKind("cuda", (8, 0), torch.bfloat16, 24), "flash_cuda"),
        (TensorKind("cuda", (9, 0), torch.float16, 256), "flash_cuda"),
        (TensorKind("cuda", (9, 0), torch.float16, 264), "efficient_cuda"),
        (TensorKind("cuda", (7, 5), torch.float16, 24), "efficient_cuda"),
        (TensorKind("cuda", (7, 5), torch.bfloat16, 24), "math"),
        (TensorKind("cuda", (8, 0), torch.bfloat16, 20), "math"),
        (TensorKind("cuda", (8, 0), torch.float32, 20), "efficient_cuda"),
        (TensorKind("cuda", (8, 0), torch.float32, 23), "math"),
        (TensorKind("cuda", (8, 0), torch.float64, 24), "math"),
        (TensorKind("mps", (0, 0), torch.float32, 24), "math"),
        (TensorKind("xpu", (0, 0), torch.float16, 24), "math"),
    ],
)
def test_the_fastest_backend_that_takes_the_tensors_is_chosen(kind, name):
    assert choose(kind).name == name


def test_a_tensor_says_what_the_choice_depends_on():
    assert kind_of(torch.empty(1, 2, 3, 24, dtype=torch.bfloat16)) == ("cpu", (0, 0), torch.bfloat16, 24)


ON_DEVICE = [("flash_cpu", "cpu"), ("math", "cpu")]
ON_DEVICE += [pytest.param(name, "cuda", marks=CUDA) for name in ("flash_cuda", "efficient_cuda", "math")]
ON_DEVICE += [pytest.param("math", "mps", marks=MPS)]


@pytest.mark.parametrize(("name", "device"), ON_DEVICE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_a_backend_computes_what_plain_math_computes(name, device, dtype, causal):
    backend = next(backend for backend in BACKENDS if backend.name == name)
    q, k, v = qkv((3, 2, 77, 24), 0, dtype, device)
    if not backend.takes(kind_of(q)):
        pytest.skip(f"{name} does not take {dtype}")
    grad, *_ = qkv(q.shape, 1, dtype, device)
    out, logsumexp = backend.attend(q, k, v, causal=causal)
    expected = MATH.attend(*(x.double().cpu() for x in (q, k, v)), causal=causal)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    assert logsumexp.dtype == torch.float32
    assert logsumexp.shape == q.shape[:3]
    assert_close((out.double().cpu(), logsumexp.double().cpu()), expected, **tolerance)
    grads = backend.attend_backward(grad, q, k, v, out.to(dtype), logsumexp, causal=causal)
    wanted = MATH.attend_backward(*(x.double().cpu() for x in (grad, q, k, v)), *expected, causal=causal)
    assert_close(tuple(x.double().cpu() for x in grads), wanted, **tolerance)


@pytest.mark.skipif(not torch.version.cuda, reason="torch was built without CUDA")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("flash_cuda", torch.bfloat16), ("efficient_cuda", torch.bfloat16), ("efficient_cuda", torch.float32)],
)
def test_the_arguments_fit_the_signatures_of_the_cuda_kernels(name, dtype):
    backend = next(backend for backend in BACKENDS if backend.name == name)
    with FakeTensorMode():  # shapes without numbers: no device needed
        q = torch.empty(3, 4, 77, 24, device="cuda", dtype=dtype)
        out, logsumexp = backend.attend(q, q, q, causal=True)
        assert (out.shape, logsumexp.shape, logsumexp.dtype) == (q.shape, q.shape[:3], torch.float32)
        grads = backend.attend_backward(q, q, q, q, out, logsumexp, causal=True)
        assert [(grad.shape, grad.dtype) for grad in grads] == [(q.shape, dtype)] * 3


@given(length=st.integers(1, 40), causal=causals, seed=st.integers(0, 2**31))
def test_plain_math_is_the_softmax_of_the_textbook_and_its_gradient(length, causal, seed):
    inputs = [x.requires_grad_() for x in qkv((2, 3, length, 4), seed)]
    logits = (inputs[0] @ inputs[1].mT / 2).masked_fill(~visible(length, causal), -math.inf)
    expected = logits.softmax(-1) @ inputs[2]
    grad = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        out, logsumexp = MATH.attend(*inputs, causal=causal)
        grads = MATH.attend_backward(grad, *inputs, out, logsumexp, causal=causal)
    assert_close(out, expected.detach())
    assert_close(logsumexp, logits.detach().logsumexp(-1))
    assert_close(grads, torch.autograd.grad(expected, inputs, grad))


@pytest.mark.parametrize("causal", [False, True])
def test_plain_math_takes_some_queries_at_a_time_with_the_same_numbers(monkeypatch, causal):
    inputs, grad = qkv((2, 3, 50, 4), 0), torch.ones(2, 3, 50, 4, dtype=torch.float64)
    at_once = MATH.attend(*inputs, causal=causal)
    grads = MATH.attend_backward(grad, *inputs, *at_once, causal=causal)
    monkeypatch.setattr(plain, "_LOGITS_AT_ONCE", 2 * 3 * 50 * 7)
    assert_close(MATH.attend(*inputs, causal=causal), at_once)
    assert_close(MATH.attend_backward(grad, *inputs, *at_once, causal=causal), grads)


@given(length=st.integers(2, 40), cut=st.integers(1, 39), seed=st.integers(0, 2**31))
def test_merging_two_sets_of_keys_is_one_softmax_over_their_union(length, cut, seed):
    cut = min(cut, length - 1)
    q, k, v = qkv((1, 2, length, 8), seed)
    parts = [MATH.attend(q, k[:, :, part], v[:, :, part], causal=False) for part in (slice(cut), slice(cut, None))]
    total = torch.logaddexp(*(logsumexp for _, logsumexp in parts))
    merged = sum(x * (s - total).exp().unsqueeze(-1) for x, s in parts)
    assert_close((merged, total), tuple(attend(q, k, v)))
    grad = torch.ones_like(q)
    shares = [
        MATH.attend_backward(grad, q, k[:, :, part], v[:, :, part], merged, total, causal=False)
        for part in (slice(cut), slice(cut, None))
    ]
    expected = attend_backward(grad, q, k, v, merged, total)
    assert_close(shares[0][0] + shares[1][0], expected[0])
    for i in (1, 2):
        assert_close(torch.cat([share[i] for share in shares], dim=2), expected[i])
