"""Encoders by name. Free of torch, like all configs."""

from longvit.config import EncoderConfig, LearnedPosition, PixelInput, SinCosPosition

# Segment lengths by side of the image in pixels: torchscale 4d1e0e8, examples/longvit/longvit.py. The official
# constructor picks them by exact match of the side, and gives any other side those of 1024 without a word.
_SMALL_SEGMENTS = {
    1024: (64, 128, 256, 512, 1024),
    4096: (1024, 2048, 4096, 8192, 16384),
    8192: (1024, 4096, 8192, 16384, 65536),
    16384: (1024, 4096, 16384, 65536, 262144),
    32768: (1024, 4096, 32768, 262144, 1048576),
}


def _longvit_small(segment_lengths: tuple[int, ...]) -> EncoderConfig:
    """Official LongViT-small.

    Its learned table stays at the 32 x 32 it was pretrained with, and is stretched in every forward; the official code
    stretches it once, into as many vectors as the largest slide has tokens (402 million weights at 32,768 pixels).
    """
    return EncoderConfig(
        input=PixelInput(patch_px=32),
        position=LearnedPosition(grid=32),
        width=384,
        depth=12,
        heads=16,
        segment_lengths=segment_lengths,
        dilation_ratios=(1, 2, 4, 8, 16),
        padding="zero_keys",
    )


PRESETS: dict[str, EncoderConfig] = {
    "longvit_tiny": EncoderConfig(
        input=PixelInput(patch_px=32),
        position=SinCosPosition(),
        width=64,
        depth=3,
        heads=4,
        segment_lengths=(64, 256, 1024),
        dilation_ratios=(1, 2, 4),
    ),
    **{f"longvit_small_{side_px}": _longvit_small(segments) for side_px, segments in _SMALL_SEGMENTS.items()},
}
"""`longvit_tiny` is for demonstrations and tests; `longvit_small_<pixels>` are the paper's."""
