"""The textbook implementation that ours is timed with computes the same: it is no strawman."""

import importlib.util
from pathlib import Path

import pytest
import torch

from longvit.model.attention.dilated import dilated_attention

SOURCE = Path(__file__).with_name("textbook.py")


@pytest.fixture(scope="module")
def textbook():
    spec = importlib.util.spec_from_file_location("textbook", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dilated_attention


@pytest.mark.parametrize("heads", [4, 16, 6])
def test_it_gives_what_ours_gives(textbook, heads):
    q, k, v = torch.randn(3, 2, 64, heads, 8, generator=torch.Generator().manual_seed(0))
    theirs = textbook(q, k, v, (8, 32, 128), (1, 2, 4))
    torch.testing.assert_close(dilated_attention(q, k, v, (8, 32, 128), (1, 2, 4)), theirs, rtol=1e-5, atol=1e-6)


def test_with_one_branch_nothing_is_mixed_and_its_gradient_is_ours(textbook):
    def gradients(attention):
        qkv = [x.requires_grad_() for x in torch.randn(3, 1, 32, 4, 8, generator=torch.Generator().manual_seed(1))]
        return torch.autograd.grad(attention(*qkv, (16,), (2,)).sin().sum(), qkv)

    for ours, theirs in zip(gradients(dilated_attention), gradients(textbook), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
