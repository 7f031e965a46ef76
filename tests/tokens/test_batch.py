import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longvit.tokens import TokenBatch


def slide(length: int, seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 256, (1, length, 12), generator=generator, dtype=torch.uint8)
    return TokenBatch(x, torch.randint(1, 99, (1, length, 2), generator=generator), torch.ones(1, length).bool())


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_collating_pads_at_the_end_and_loses_nothing(lengths):
    slides = [slide(length, seed) for seed, length in enumerate(lengths)]
    batch = TokenBatch.collate(slides)
    assert batch.lengths.tolist() == lengths
    assert batch.x.shape == (len(lengths), max(lengths), 12)
    for row, (one, length) in enumerate(zip(slides, lengths, strict=True)):
        assert batch.mask_BL[row].tolist() == [True] * length + [False] * (max(lengths) - length)
        assert torch.equal(batch.x[row, :length], one.x[0])
        assert torch.equal(batch.rc_BL2[row, :length], one.rc_BL2[0])
        assert not batch.x[row, length:].any()


def test_batches_that_are_padded_already_can_be_collated_again():
    inner = TokenBatch.collate([slide(2), slide(5)])
    assert TokenBatch.collate([inner, slide(7)]).lengths.tolist() == [2, 5, 7]


def test_moving_a_batch_moves_all_of_it():
    moved = slide(3).to("meta")
    assert {tensor.device.type for tensor in (moved.x, moved.rc_BL2, moved.mask_BL)} == {"meta"}


def test_tokens_places_and_mask_of_different_lengths_do_not_make_a_batch():
    good = slide(3)
    with pytest.raises(Exception, match="rc_BL2"):
        TokenBatch(good.x, good.rc_BL2[:, :2], good.mask_BL)
