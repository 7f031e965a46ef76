import torch
from torch.testing import assert_close

from longvit.config import EmbeddingInput, LearnedPosition, PixelInput
from longvit.model.inputs import EmbeddingTokens, PixelTokens, build_input
from longvit.model.position import build_position
from longvit.tokens.batch import TokenBatch


def test_patches_and_positions_are_those_of_the_official_code(golden, slide):
    case = golden("longvit_tiny")
    source, position = build_input(PixelInput(patch_px=32), 48), build_position(LearnedPosition(grid=8), 48)
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
    source = build_input(EmbeddingInput(encoder="uni", dim=6), 4)
    assert isinstance(source, EmbeddingTokens)
    x = torch.randn(1, 3, 6).half()
    batch = TokenBatch(x, torch.zeros(1, 3, 2).long(), torch.ones(1, 3).bool())
    assert_close(source(batch), source.proj(x.float()))
