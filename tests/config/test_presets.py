import pytest
import torch

from longvit.config import LearnedPosition
from longvit.model import PRESETS, LongViT

SIDES_PX = [1024, 4096, 8192, 16384, 32768]


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(x.numel() for x in LongViT(PRESETS[name]).parameters())


def blocks(width: int, depth: int) -> int:
    """Linear layers of attention and feed-forward, then four norms."""
    linear = 4 * (width * width + width) + 2 * width * 4 * width + 4 * width + width
    return depth * (linear + 2 * (3 * width + 4 * width))


@pytest.mark.parametrize("side_px", SIDES_PX)
def test_longvit_small_has_the_size_of_the_official_model(side_px):
    table = 32 * 32 * 384
    assert parameters(f"longvit_small_{side_px}") == blocks(384, 12) + 3072 * 384 + 384 + table


@pytest.mark.parametrize(("depth", "width"), [(12, 768), (24, 1024), (12, 1536)])
def test_gigapaths_encoders_have_the_size_of_the_official_ones(depth, width):
    class_token, last_norm = width, 2 * width
    expected = blocks(width, depth) + 1536 * width + width + class_token + last_norm
    assert parameters(f"gigapath_slide_enc{depth}l{width}d") == expected


@pytest.mark.parametrize("side_px", SIDES_PX)
def test_the_longest_segment_of_a_preset_covers_its_whole_image(side_px):
    assert PRESETS[f"longvit_small_{side_px}"].segment_lengths[-1] == (side_px // 32) ** 2


def test_gigapaths_segments_are_those_of_its_constructor():
    encoders = [config for name, config in PRESETS.items() if name.startswith("gigapath")]
    assert len(encoders) == 3
    assert {config.segment_lengths for config in encoders} == {(1024, 5792, 32768, 185363, 1048576)}
    assert {config.dilation_ratios for config in encoders} == {(1, 2, 4, 8, 16)}


def test_only_encoders_for_larger_images_stretch_the_table_as_loading_does():
    stretch = {side_px: PRESETS[f"longvit_small_{side_px}"].position for side_px in SIDES_PX}
    assert stretch == {side_px: LearnedPosition(grid=32, stretch="load") for side_px in SIDES_PX[1:]} | {
        1024: LearnedPosition(grid=32, stretch="forward")
    }
