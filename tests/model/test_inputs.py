import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from longvit.config import EmbeddingInput, EncoderConfig, ExecutionConfig, LearnedPosition, PixelInput
from longvit.model.inputs import EmbeddingTokens, PixelTokens, StemTokens, build_input
from longvit.model.position import build_position
from longvit.tokens.batch import TokenBatch


def test_patches_and_positions_are_those_of_the_official_code(golden, slide):
    case = golden("longvit_tiny")
    source, position = (
        build_input(EncoderConfig(input=PixelInput(), width=48)),
        build_position(LearnedPosition(grid=8), 48),
    )
    weight, bias = case["w.patch_embed.proj.weight"].flatten(1), case["w.patch_embed.proj.bias"]
    source.load_state_dict({"proj.weight": weight, "proj.bias": bias})
    position.load_state_dict({"table": case["w.pos_embed"]})
    batch = slide(case["img256.u8"])
    assert_close(source(batch) + position(batch), case["img256.tokens"], rtol=1e-5, atol=1e-5)


def test_flattened_patches_are_channel_row_column(slide):
    u8 = torch.arange(3 * 64 * 32).remainder(251).to(torch.uint8).view(1, 3, 64, 32)
    assert torch.equal(slide(u8).x[0, 1].view(3, 32, 32), u8[0, :, 32:])


def test_a_patch_of_mid_grey_gives_the_bias():
    source = PixelTokens(PixelInput(patch_px=2), width=4)
    grey = torch.tensor([[[127] * 12, [128] * 12]], dtype=torch.uint8)  # as near above 0.5 as below
    mean = source(TokenBatch(grey, torch.zeros(1, 2, 2).long(), torch.ones(1, 2).bool())).mean(1)
    assert_close(mean[0], source.proj.bias.detach(), rtol=0, atol=1e-6)


def test_embeddings_kept_in_half_precision_are_projected_in_the_precision_of_the_weights():
    source = build_input(EncoderConfig(input=EmbeddingInput(encoder="uni", dim=6), width=4, heads=1))
    assert isinstance(source, EmbeddingTokens)
    x = torch.randn(1, 3, 6).half()
    batch = TokenBatch(x, torch.zeros(1, 3, 2).long(), torch.ones(1, 3).bool())
    assert_close(source(batch), source.proj(x.float()))


@pytest.fixture
def stem():
    torch.manual_seed(0)
    return lambda **settings: StemTokens(PixelInput(patch_px=16, stem=(6, 10), **settings), width=8)


def patches(x: torch.Tensor) -> TokenBatch:
    return TokenBatch(x, torch.zeros(*x.shape[:2], 2).long(), torch.ones(x.shape[:2]).bool())


def test_a_stem_sees_the_same_texture_wherever_it_lies_in_a_patch():
    torch.manual_seed(0)
    source = StemTokens(PixelInput(patch_px=16, stem=(8,)), width=8)
    images = torch.randint(256, (1, 1, 3, 16, 16), dtype=torch.uint8)
    moved, turned = images.roll((4, 8), dims=(3, 4)), images.rot90(2, dims=(3, 4))
    seen, seen_moved, seen_turned = (source(patches(x.flatten(2))) for x in (images, moved, turned))
    assert_close(seen, seen_moved)
    assert (seen - seen_turned).abs().max() > 1e-3  # it is not blind


def test_a_stem_embeds_each_patch_by_itself_whatever_the_pieces(stem):
    source, x = stem(), torch.randint(256, (2, 7, 768), dtype=torch.uint8)
    whole = source(patches(x))
    assert whole.shape == (2, 7, 8)
    with torch.no_grad():
        assert_close(source(patches(x), ExecutionConfig(tokens_at_once=4)), whole)
    alone = [source(patches(x[row : row + 1, token : token + 1])) for row in range(2) for token in range(7)]
    assert_close(torch.cat(alone).view(2, 7, 8), whole)


def test_a_stem_that_computes_twice_learns_the_same(stem):
    source, x = stem(), torch.randint(256, (2, 7, 768), dtype=torch.uint8)
    grads = {}
    for recompute in ("nothing", "blocks"):
        source.zero_grad()
        source(patches(x), ExecutionConfig(recompute=recompute, tokens_at_once=4)).pow(2).sum().backward()
        grads[recompute] = [weight.grad for weight in source.parameters()]
    assert_close(grads["nothing"], grads["blocks"])


def test_a_stem_of_scaled_patches_is_blind_to_their_colour_and_contrast(stem):
    faint = torch.randint(40, (1, 3, 3, 256), dtype=torch.uint8)
    colour = torch.tensor([10, 60, 90], dtype=torch.uint8).view(1, 1, 3, 1)
    scaled, fixed = stem(scale="patch"), stem()
    of_patch, of_strong = (scaled(patches(x.flatten(2))) for x in (faint, 4 * faint))
    assert_close(of_patch, scaled(patches((faint + colour).flatten(2))), rtol=1e-4, atol=1e-4)
    assert (of_patch - of_strong).abs().max() < 0.2 * of_patch.abs().max()  # but for the noise that is not blown up
    assert (fixed(patches(faint.flatten(2))) - fixed(patches((faint + colour).flatten(2)))).abs().max() > 0.1


def test_a_stem_whose_stride_does_not_divide_the_patch_is_refused():
    with pytest.raises(ValidationError, match="a stem needs a patch_px that is a multiple of 4, not 30"):
        PixelInput(patch_px=30, stem=(8,))
