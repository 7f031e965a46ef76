"""One sequence on several ranks gives the numbers of one process."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.model import LongViT
from longvit.model.sequence_group import SequenceGroup

CONFIG = {"width": 24, "depth": 2, "heads": 6, "input": {"kind": "embeddings", "encoder": "e", "dim": 5}}


def whole(config: EncoderConfig, execution: ExecutionConfig, x_BLD: Tensor, mask_BL: Tensor | None, group=None):
    """Return tokens, slide vectors, and all gradients of a loss of both, on the ranks of a group or in one process."""
    torch.manual_seed(0)
    model = LongViT(config).to(x_BLD.dtype)
    model.execution, model.group = execution, group
    x_BLD = x_BLD.clone().requires_grad_()
    tokens_BLD, slide_BD = model.encode(x_BLD, mask_BL)
    return model, x_BLD, tokens_BLD, slide_BD


def one(config, execution, x_BLD, mask_BL):
    model, x_BLD, tokens_BLD, slide_BD = whole(config, execution, x_BLD, mask_BL)
    (tokens_BLD.cos().sum() + slide_BD.sin().sum()).backward()
    return tokens_BLD.detach(), slide_BD.detach(), x_BLD.grad, [p.grad for p in model.parameters()]


def shared(group: SequenceGroup, config, execution, x_BLD, mask_BL, shares):
    start = sum(shares[: group.rank])
    own = slice(start, start + shares[group.rank])
    mask_BL = None if mask_BL is None else mask_BL[:, own]
    model, x_BLD, tokens_BLD, slide_BD = whole(config, execution, x_BLD[:, own], mask_BL, group)
    # The sum over ranks of the losses is P times the loss: the mean over ranks of the gradients is one process's.
    loss = group.sum(tokens_BLD.cos().sum()) + slide_BD.sin().sum()
    loss.backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return tokens_BLD.detach(), slide_BD.detach(), x_BLD.grad, grads


def assert_equal(ranks, config, execution, x_BLD, mask_BL, shares, **tolerance):
    config, count = EncoderConfig(**CONFIG | config), len(shares)
    tokens, slide, grad_x, grads = one(config, execution, x_BLD, mask_BL)
    found = ranks(count, shared, config, execution, x_BLD, mask_BL, shares)
    assert_close(torch.cat([f[0] for f in found], 1), tokens, **tolerance)
    for f in found:
        assert_close(f[1], slide, **tolerance)
    assert_close(torch.cat([f[2] for f in found], 1) / count, grad_x, **tolerance)
    for i, grad in enumerate(grads):
        if grad is not None:
            assert_close(sum(f[3][i] for f in found) / count, grad, **tolerance)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_equal(ranks, count):
    torch.manual_seed(1)
    x = torch.randn(2, 50, 24).double()
    mask = torch.arange(50) < torch.tensor([[50], [23]])
    shares = [50 // count] * (count - 1)
    shares += [50 - sum(shares)]
    config = {"segment_lengths": (8, 16, 64), "dilation_ratios": (1, 2, 4)}
    assert_equal(ranks, config, ExecutionConfig(), x, mask, shares, atol=1e-12, rtol=1e-12)
