"""A model with weights in its head, and slides of random patches."""

from collections.abc import Callable

import pytest
import torch

from longvit.config import SubtypeTask
from longvit.model import LongViT
from longvit.model.predictor import SlideModel
from longvit.tokens import TokenBatch


@pytest.fixture
def model(tiny_encoder) -> SlideModel:
    """A subtyping model with weights in its head."""
    torch.manual_seed(0)
    model = SlideModel(LongViT(tiny_encoder), SubtypeTask(), ("LUAD", "LUSC"))
    torch.nn.init.normal_(model.head.linear.weight)
    return model


@pytest.fixture
def random_slide() -> Callable[[int, int], TokenBatch]:
    """(tokens, seed) -> a slide of random patches of 16 pixels."""

    def slide(tokens: int, seed: int) -> TokenBatch:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(256, (1, tokens, 3 * 16**2), generator=generator, dtype=torch.uint8)
        rc = torch.randint(50, (1, tokens, 2), generator=generator)
        return TokenBatch(x, rc, torch.ones(1, tokens).bool())

    return slide
