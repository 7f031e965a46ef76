"""Cost: attention by the paper's formula, operations and bytes as they are counted, memory as what a rank keeps."""

from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from longvit.config import EncoderConfig, ExecutionConfig, PixelInput
from longvit.model import LongViT
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.shares import Shares
from longvit.model.cost import memory_of_rank, sent_bytes, work_per_token
from longvit.model.rank_group import RankGroup
from longvit.tokens.batch import TokenBatch

CONFIG = EncoderConfig(
    width=24, heads=6, depth=2, drop_path=0.0, segment_lengths=(8, 16, 64), dilation_ratios=(1, 2, 4)
)
BORDERS = (0, 1, 31, 50)


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


def counted(group: RankGroup, recompute: str, dtype: torch.dtype, training: bool) -> tuple[int, int]:
    """Return the bytes that a rank sends, counted and predicted."""
    encoder, sent, real = LongViT(CONFIG).to(dtype), [], dist.all_to_all_single
    encoder.group, encoder.execution = group, ExecutionConfig(recompute=recompute)

    def send(output, source, *args, **kwargs) -> object:
        sent.append(source.nbytes)
        return real(output, source, *args, **kwargs)

    share = BORDERS[group.rank + 1] - BORDERS[group.rank]
    x = torch.ones(1, share, 24, dtype=dtype, requires_grad=training)
    with patch.object(dist, "all_to_all_single", send), torch.set_grad_enabled(training):
        vector = encoder.encode(x).slide_BD
        if training:
            vector.sum().backward()
    plan = AttentionPlan.of(CONFIG, (50,), encoder.execution, shares=Shares(BORDERS, group.rank))
    return sum(sent), sent_bytes(CONFIG, plan, dtype, training=training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("recompute", ["nothing", "all_but_attention", "blocks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bytes_that_are_sent_are_those_of_the_formula(ranks, recompute, dtype, training):
    found = ranks(3, counted, recompute, dtype, training)
    assert all(sent == predicted > 0 for sent, predicted in found)


def test_without_cut_segments_nothing_is_sent():
    for shares in (None, Shares((0, 64, 128), 1)):
        plan = AttentionPlan.of(CONFIG, (128,), shares=shares)
        assert sent_bytes(CONFIG, plan, torch.float32, training=True) == 0


def memory(dtype: torch.dtype = torch.float32, *, training: bool = False, **execution) -> float:
    """Return the memory per token of a rank whose largest call is small next to its share."""
    config = CONFIG.model_copy(update={"segment_lengths": (1024,), "dilation_ratios": (1,)})
    plans = (AttentionPlan.of(config, (n,), ExecutionConfig(**execution)) for n in (2**20, 2**21))
    one, two = (memory_of_rank(config, plan, dtype, training=training) for plan in plans)
    return (two - one) / 2**20


def test_memory_is_what_a_token_keeps():
    """Of 24 numbers in 6 heads: tokens and heads, q, k, v and logsumexp of the heads that are computed together."""
    assert memory(heads_at_once=2) == 4 * (2 * 24 + 3 * 2 * 4 + 2)
    assert memory(torch.bfloat16, heads_at_once=9) == 2 * (2 * 24 + 3 * 24) + 4 * (6 + 24)
    assert memory(torch.bfloat16, heads_at_once=1) == (2 + 4) * 24
    of_blocks = {"all_but_attention": 2 * (3 * 24 + 6), "blocks": 2 * 24 + 2 * 24 + 6}
    for recompute, kept in of_blocks.items():
        backward = 2 * 24 + 3 * 2 * 4 * 2
        assert memory(training=True, recompute=recompute, heads_at_once=2) == 4 * (kept + backward)
        assert memory(training=True, recompute=recompute, heads_at_once=1) == 4 * (kept + 3 * 24)


def test_memory_of_a_share_does_not_depend_on_the_number_of_ranks():
    lengths, ratios = zip(*((64 * 4**i, 4**i) for i in range(8)), strict=True)
    config = CONFIG.model_copy(update={"segment_lengths": lengths, "dilation_ratios": ratios})
    sizes = []
    for count in (1, 4, 16, 64):
        borders = tuple(2**14 * i for i in range(count + 1))
        plan = AttentionPlan.of(config, borders[-1:], ExecutionConfig(), shares=Shares(borders, count // 2))
        sizes.append(memory_of_rank(config, plan, torch.float32))
    assert max(sizes) < 1.01 * min(sizes)


def test_there_is_no_model_of_training_that_computes_nothing_twice():
    with pytest.raises(ValueError, match="recompute"):
        memory(training=True, recompute="nothing")
