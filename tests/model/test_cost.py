"""Cost of a token: attention by the paper's formula, and embedding by the operations that torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from longvit.config import PixelInput
from longvit.model import LongViT
from longvit.model.attention.plan import AttentionPlan
from longvit.model.cost import work_per_token
from longvit.tokens.batch import TokenBatch


def test_the_work_of_attention_is_the_cost_of_the_paper(tiny_encoder):
    config = tiny_encoder.model_copy(
        update={"width": 384, "segment_lengths": (1024, 4096, 32768), "dilation_ratios": (1, 2, 4)}
    )
    projections = 8 * 384**2
    assert work_per_token(config, AttentionPlan.of(config, (10**6,))).attention - projections == 4 * 384 * (
        1024 + 1024 + 2048
    )
    assert work_per_token(config, AttentionPlan.of(config, (1024,))).attention - projections == 4 * 384 * (
        1024 + 256 + 64
    )


@pytest.mark.parametrize(("patch_px", "stem"), [(32, ()), (32, (6, 10, 12)), (8, (4,)), (12, (5, 7))])
def test_the_work_of_embedding_is_what_torch_counts(tiny_encoder, patch_px, stem):
    config = tiny_encoder.model_copy(update={"input": PixelInput(patch_px=patch_px, stem=stem)})
    pixels = torch.zeros(1, 3, 3 * patch_px**2, dtype=torch.uint8)
    batch = TokenBatch(pixels, torch.zeros(1, 3, 2).long(), torch.ones(1, 3).bool())
    with FlopCounterMode(display=False) as counter:
        LongViT(config).input(batch)
    assert counter.get_total_flops() == 3 * work_per_token(config, AttentionPlan.of(config, (3,))).embedding
