import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from longvit.config import EmbeddingInput, MaskedConfig
from longvit.pretraining.masked import Restorer, draw_hidden, hidden_content, masked_step
from longvit.tokens import TokenBatch
from longvit.training.loop import begin


def padded(lengths: list[int], width: int = 12, *, pixels: bool = True) -> TokenBatch:
    """Slides of the given lengths, with random content also where padding is."""
    torch.manual_seed(0)
    longest = max(lengths)
    x = torch.randint(0, 256, (len(lengths), longest, width), dtype=torch.uint8)
    rc = torch.stack([torch.arange(longest), torch.zeros(longest, dtype=torch.int64)], dim=-1)
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    return TokenBatch(x if pixels else x.float() / 100, rc.expand(len(lengths), -1, -1), mask)


@pytest.fixture(scope="module")
def restorer(tiny_encoder) -> Restorer:
    torch.manual_seed(0)
    small = tiny_encoder.input.model_copy(update={"patch_px": 2})
    return Restorer(tiny_encoder.model_copy(update={"input": small}), MaskedConfig(decoder_width=16)).eval()


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@given(lengths=lengths, share=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_the_same_share_of_every_slide_is_hidden_and_padding_never(lengths, share, seed):
    mask = padded(lengths).mask_BL
    hidden = draw_hidden(mask, share, torch.Generator().manual_seed(seed))
    assert not (hidden & ~mask).any()
    assert hidden.sum(1).tolist() == [max(1, round(torch.tensor(n * share).item())) for n in lengths]
    assert torch.equal(hidden, draw_hidden(mask, share, torch.Generator().manual_seed(seed)))


def test_every_token_is_hidden_as_often_as_any_other():
    mask, generator = torch.ones(4000, 10, dtype=torch.bool), torch.Generator().manual_seed(0)
    often = draw_hidden(mask, 0.3, generator).float().mean(dim=0)
    assert_close(often, torch.full((10,), 0.3), atol=0.03, rtol=0)


@settings(max_examples=20)
@given(lengths=lengths, seed=st.integers(0, 99))
def test_nothing_is_restored_from_what_is_hidden(restorer, lengths, seed):
    batch = padded(lengths)
    hidden = draw_hidden(batch.mask_BL, 0.5, torch.Generator().manual_seed(seed))
    other = batch.x.clone()
    other[hidden] = 255 - other[hidden]
    slide, restored = restorer(batch, hidden)
    changed_slide, changed = restorer(TokenBatch(other, batch.rc_BL2, batch.mask_BL), hidden)
    assert torch.equal(restored, changed)
    assert torch.equal(slide, changed_slide)


def test_what_is_in_sight_and_the_place_of_what_is_hidden_are_seen(restorer):
    batch = padded([12])
    hidden = torch.zeros(1, 12, dtype=torch.bool)
    hidden[0, :2] = True
    restored = restorer(batch, hidden)[1]
    assert not torch.allclose(restored[0], restored[1])  # the same vector, at two places
    other = batch.x.clone()
    other[0, 5] = 255 - other[0, 5]
    assert not torch.allclose(restored, restorer(TokenBatch(other, batch.rc_BL2, batch.mask_BL), hidden)[1])


def test_padding_changes_nothing(restorer):
    beside = padded([9, 30])
    alone = TokenBatch(beside.x[:1, :9], beside.rc_BL2[:1, :9], beside.mask_BL[:1, :9])
    hidden = torch.zeros(2, 30, dtype=torch.bool)
    hidden[0, :4] = True
    assert_close(restorer(alone, hidden[:1, :9])[1], restorer(beside, hidden)[1])


def test_with_nothing_hidden_the_encoder_is_the_one_that_is_kept(restorer):
    batch = padded([9, 5])
    slide, restored = restorer(batch, torch.zeros(2, 9, dtype=torch.bool))
    assert restored.shape == (0, 12)
    assert_close(slide, restorer.encoder.represent(batch))


@pytest.mark.parametrize("pixels", [True, False])
def test_what_is_to_be_restored_has_mean_0_and_deviation_1(pixels):
    content = hidden_content(padded([40], 300, pixels=pixels), torch.ones(1, 40, dtype=torch.bool))
    assert_close(content.mean(dim=-1), torch.zeros(40), atol=1e-4, rtol=0)
    assert_close(content.std(dim=-1), torch.ones(40), atol=1e-2, rtol=0)


@given(gain=st.floats(0.5, 2), offset=st.floats(-10, 10))
def test_what_is_to_be_restored_of_an_embedding_knows_neither_its_scale_nor_its_offset(gain, offset):
    batch, every = padded([5], 64, pixels=False), torch.ones(1, 5, dtype=torch.bool)
    scaled = TokenBatch(batch.x * gain + offset, batch.rc_BL2, batch.mask_BL)
    assert_close(hidden_content(scaled, every), hidden_content(batch, every), atol=1e-3, rtol=1e-3)


def test_noise_on_glass_is_not_blown_up():
    glass = torch.randint(239, 242, (1, 5, 300), dtype=torch.uint8)
    batch = TokenBatch(glass, torch.zeros(1, 5, 2, dtype=torch.int64), torch.ones(1, 5, dtype=torch.bool))
    assert hidden_content(batch, batch.mask_BL).std() < 0.3


def test_a_head_that_restores_the_mean_alone_loses_the_variance_which_is_1(restorer):
    restorer = copy.deepcopy(restorer)
    torch.nn.init.zeros_(restorer.head[-1].weight)
    torch.nn.init.zeros_(restorer.head[-1].bias)
    batch = padded([40, 30])
    hidden = draw_hidden(batch.mask_BL, 0.5, torch.Generator().manual_seed(0))
    content = hidden_content(batch, hidden)
    assert masked_step(restorer, batch, hidden).loss.item() == pytest.approx(content.pow(2).mean().item())


def test_it_works_on_embeddings(config, objectives, start):
    source = EmbeddingInput(encoder="any", dim=12)
    encoder = config.encoder.model_copy(update={"input": source})
    module = start(config.model_copy(update={"objective": objectives["masked"], "encoder": encoder}))
    loss = module.training_step([padded([40, 9], pixels=False)], 0)
    assert loss.isfinite()


def test_what_is_hidden_depends_on_seed_and_step_alone(config, objectives, start, batch, monkeypatch):
    hidden = []

    def step_with(restorer, batch, drawn, shared):
        hidden.append(drawn)
        return masked_step(restorer, batch, drawn, shared)

    monkeypatch.setattr("longvit.pretraining.masked.masked_step", step_with)
    for place, (seed, number) in enumerate(((0, 3), (0, 3), (0, 4), (1, 3))):
        module = start(config.model_copy(update={"objective": objectives["masked"], "seed": seed}))
        module.trainer.global_step = module.trainer.fit_loop.total_batch_idx = number
        torch.rand(place)  # what was drawn before leaves no trace
        module.step(batch)
    assert torch.equal(hidden[0], hidden[1])
    assert not torch.equal(hidden[0], hidden[2])
    assert not torch.equal(hidden[0], hidden[3])


def test_a_few_steps_restore_a_pattern_that_neighbours_show(config, objectives, start):
    """Tokens of a slide all look alike, each slide in its own way: what is hidden can be known from what is not."""
    encoder = config.encoder.model_copy(update={"input": config.encoder.input.model_copy(update={"patch_px": 2})})
    begin(config)
    module = start(config.model_copy(update={"objective": objectives["masked"], "encoder": encoder}))
    module.restorer.eval()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2)
    looks = torch.randint(0, 256, (4, 12), dtype=torch.uint8)
    losses = []
    for step in range(40):
        module.trainer.global_step = module.trainer.fit_loop.total_batch_idx = step
        batch = padded([9] * 8)
        batch = TokenBatch(looks[torch.arange(8) % 4].unsqueeze(1).expand(-1, 9, -1), batch.rc_BL2, batch.mask_BL)
        losses.append(module.step([batch]).loss)
        losses[-1].backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[-1] < 0.3 < 0.9 < losses[0]
