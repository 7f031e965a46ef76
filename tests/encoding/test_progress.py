"""The bar moves within a block, and to its end."""

import pytest

from longvit.encoding.progress import watched
from longvit.encoding.slide import encode_slide
from longvit.model import LongViT
from longvit.model.attention.plan import AttentionPlan
from longvit.model.cost import work_per_token
from longvit.tokens.pieces import SlidePieces


@pytest.mark.parametrize("more", [{}, {"class_token": True, "pooling": "class"}], ids=["mean", "class token"])
def test_the_work_that_is_reported_adds_up_to_the_work_that_was_expected(save_store, tiny_encoder, more):
    encoder = LongViT(tiny_encoder.model_copy(update=more)).eval()
    pieces = SlidePieces(save_store("S", [[3, 1], [0, 2], [0, 0], [2, 4], [2, 0]]), encoder.config.input)
    tokens = len(pieces.rc_L2)
    work, blocks, done = work_per_token(encoder.config, AttentionPlan.of(encoder.config, (tokens,))), [], [0.0]

    def add(block: int, amount: float) -> None:
        blocks.append(block)
        done[0] += amount

    with watched(encoder, work, add):
        encode_slide(encoder, pieces, embedded=lambda count: done.append(count * work.embedding))
    assert blocks == sorted(blocks)
    assert all(blocks.count(block) >= 2 for block in (1, 2)), "the bar moves within a block"
    assert sum(done) == pytest.approx(work.of_slide(tokens, encoder.config))
    reports = len(blocks)
    encode_slide(encoder, pieces)
    assert len(blocks) == reports, "nobody watches any more"
