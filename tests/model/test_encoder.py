import pytest
import torch
from torch.nn.functional import layer_norm, linear
from torch.testing import assert_close

from longvit.config import EmbeddingInput, EncoderConfig, LearnedPosition, PixelInput
from longvit.model import PRESETS, LongViT, load_official, mean_pool
from longvit.model.attention import layer as attention
from longvit.tokens.batch import TokenBatch

TINY = EncoderConfig(position=LearnedPosition(grid=8), width=48, depth=2, heads=4, padding="zero_keys")


def official(golden, name: str = "longvit_tiny") -> LongViT:
    segments, ratios = ((16, 32, 64), (1, 2, 4)) if name == "longvit_tiny" else (TINY.segment_lengths, (1, 2, 4, 8, 16))
    config = TINY.model_copy(update={"segment_lengths": segments, "dilation_ratios": ratios})
    return load_official(golden("longvit_tiny").weights, config)


@pytest.mark.parametrize("image", ["img256", "img320", "img_h256_w384"])
def test_matches_official_longvit(golden, slide, image):
    case = golden("longvit_tiny")
    with torch.no_grad():
        out = official(golden)(slide(case[f"{image}.u8"]))
    assert_close(out, case[f"{image}.out"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["longvit_tiny", "longvit_tiny_default_segments"])
def test_every_block_matches_official_longvit(golden, slide, name):
    encoder, blocks = official(golden, name), []
    for layer in encoder.encoder.layers:
        layer.register_forward_hook(lambda _, __, out: blocks.append(out))
    with torch.no_grad():
        encoder(slide(golden("longvit_tiny")["img256.u8"]))
    for out, expected in zip(blocks, ("img256.hidden1", "img256.out"), strict=True):
        assert_close(out, golden(name)[expected], rtol=1e-4, atol=1e-5)


def test_an_official_head_on_the_mean_of_the_tokens_gives_the_official_logits(golden, slide):
    # The head's backbone took the default segments.
    batch, head = slide(golden("longvit_tiny")["img256.u8"]), golden("longvit_classifier_tiny")
    with torch.no_grad():
        pooled = mean_pool(official(golden, "longvit_tiny_default_segments")(batch), batch.mask_BL)
    normed = layer_norm(pooled, (48,), head["w.fc_norm.weight"], head["w.fc_norm.bias"], eps=1e-5)
    logits = linear(normed, head["w.head.weight"], head["w.head.bias"])
    assert_close(logits, head["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_a_batch_equals_its_slides_one_by_one(random_slide, position):
    config = (
        PRESETS["longvit_tiny"]
        if position == "sincos"
        else PRESETS["longvit_tiny"].model_copy(update={"position": LearnedPosition(grid=4)})
    )
    encoder = LongViT(config).eval()
    slides = [random_slide(length, seed) for seed, length in enumerate((90, 1, 300, 300))]
    batch = TokenBatch.collate(slides)
    assert batch.lengths.tolist() == [90, 1, 300, 300]
    out = encoder(batch)
    for row, (one, length) in enumerate(zip(slides, batch.lengths, strict=True)):
        assert_close(out[row, :length], encoder(one)[0], rtol=1e-4, atol=1e-5)
        assert not out[row, length:].any()


def test_tokens_from_tile_embeddings_go_through_the_same_blocks():
    config = PRESETS["longvit_tiny"].model_copy(update={"input": EmbeddingInput(encoder="uni", dim=16)})
    batch = TokenBatch(torch.randn(2, 7, 16), torch.randint(99, (2, 7, 2)), torch.ones(2, 7).bool())
    assert LongViT(config)(batch).shape == (2, 7, 64)


def test_every_weight_learns(random_slide):
    encoder = LongViT(PRESETS["longvit_tiny"].model_copy(update={"drop_path": 0.0}))
    encoder(random_slide(100, 0)).square().sum().backward()
    still = {name for name, weight in encoder.named_parameters() if not weight.grad.any()}
    assert not still


def test_stochastic_depth_grows_from_none_to_the_configured_share_and_only_trains(random_slide):
    encoder = LongViT(PRESETS["longvit_tiny"].model_copy(update={"drop_path": 0.5}))
    assert [layer.drop_path for layer in encoder.encoder.layers] == [0.0, 0.25, 0.5]
    batch = random_slide(20, 0)
    torch.manual_seed(0)
    outs = [encoder(batch) for _ in range(8)]
    assert any(not torch.equal(out, outs[0]) for out in outs)
    encoder.eval()
    assert torch.equal(encoder(batch), encoder(batch))


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bfloat16_stays_near_float32(random_slide, how):
    torch.manual_seed(0)
    encoder, batch = LongViT(PRESETS["longvit_tiny"]).eval(), random_slide(200, 0)
    exact = encoder(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        near = (encoder.bfloat16() if how == "weights" else encoder)(batch)
    assert near.dtype == (torch.float32 if how == "autocast" else torch.bfloat16)
    assert (near.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("scale", "stem", "class_token"), [("fixed", (), False), ("patch", (), True), ("fixed", (8,), False)]
)
def test_a_narrowed_encoder_is_within_two_percent_of_float32(random_slide, scale, stem, class_token):
    torch.manual_seed(0)
    source = PixelInput(patch_px=32, scale=scale, stem=stem)
    config = PRESETS["longvit_tiny"].model_copy(update={"input": source, "depth": 12, "class_token": class_token})
    encoder, batch = LongViT(config).eval(), random_slide(300, 0)
    with torch.inference_mode():
        exact = encoder.encode(encoder.embed(batch), overwrite=True)
        narrow = encoder.narrowed(torch.bfloat16)
        near = narrow.encode(narrow.embed(batch), overwrite=True)
        again = narrow.encode(narrow.embed(batch), batch.mask_BL)
    assert narrow.dtype == near.tokens_BLD.dtype == near.slide_BD.dtype == torch.float32
    for one, other in zip(near, exact, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()
    assert torch.equal(near.tokens_BLD, again.tokens_BLD)  # in the memory of the tokens, or in memory of its own


@pytest.mark.slow
def test_longvit_small_in_bfloat16_is_within_two_percent_of_float32(random_slide):
    torch.manual_seed(0)
    encoder, batch = LongViT(PRESETS["longvit_small_1024"]).eval(), random_slide(4096, 0)
    with torch.inference_mode():
        exact = encoder.represent(batch)
        near = encoder.narrowed(torch.bfloat16).represent(batch)
    assert (near - exact).norm() < 0.02 * exact.norm()


def test_a_long_sequence_is_narrowed_in_chunks_of_fewer_heads_with_the_same_numbers(random_slide, monkeypatch):
    torch.manual_seed(0)
    encoder, batch = LongViT(PRESETS["longvit_tiny"]).eval().narrowed(torch.bfloat16), random_slide(100, 0)
    with torch.inference_mode():
        short = encoder.represent(batch)
        monkeypatch.setattr(attention, "_LONG", 50)
        assert torch.equal(encoder.represent(batch), short)


def test_linear_weights_start_as_magneto_starts_them():
    layer = LongViT(PRESETS["longvit_small_1024"]).encoder.layers[3]
    subln_gain = 1.7827  # sqrt(ln 24), Magneto's for 12 layers
    for module, gain in (
        (layer.self_attn.q_proj, 1),
        (layer.self_attn.v_proj, subln_gain),
        (layer.ffn.fc2, subln_gain),
    ):
        xavier = (2 / sum(module.weight.shape)) ** 0.5
        assert module.weight.std().item() == pytest.approx(gain * xavier, rel=0.01)
        assert not module.bias.any()


def test_longvit_small_has_the_size_of_the_official_model():
    with torch.device("meta"):
        sizes = {name: sum(x.numel() for x in LongViT(config).parameters()) for name, config in PRESETS.items()}
    small = {size for name, size in sizes.items() if name.startswith("longvit_small")}
    block = 4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 2 * (3 * 384 + 1536)  # linear layers, then four norms
    assert small == {12 * block + 3072 * 384 + 384 + 32 * 32 * 384}


@pytest.mark.parametrize("side_px", [1024, 4096, 8192, 16384, 32768])
def test_the_longest_segment_of_a_preset_covers_its_whole_image(side_px):
    assert PRESETS[f"longvit_small_{side_px}"].segment_lengths[-1] == (side_px // 32) ** 2
