"""Encoder presets by name, free of torch like all settings."""

import math

from longvit.config.encoder import EmbeddingInput, EncoderConfig, LearnedPosition, PixelInput, SinCosPosition

_RATIOS = (1, 2, 4, 8, 16)

# Segment lengths by side of the image in pixels: torchscale 4d1e0e8, examples/longvit/longvit.py. The official
# constructor picks them by exact match of the side, and silently gives any other side the lengths of 1024.
_SMALL_SEGMENTS = {
    1024: (64, 128, 256, 512, 1024),
    4096: (1024, 2048, 4096, 8192, 16384),
    8192: (1024, 4096, 8192, 16384, 65536),
    16384: (1024, 4096, 16384, 65536, 262144),
    32768: (1024, 4096, 32768, 262144, 1048576),
}
_PRETRAINED_PX = 1024

_GIGAPATH = {768: 12, 1024: 24, 1536: 12}
"""Depth by width: prov-gigapath 09d8e87, gigapath/slide_encoder.py."""


def _longvit_small(side_px: int) -> EncoderConfig:
    """Return official LongViT-small for images of a side, pixels.

    Its learned table keeps the 32 x 32 entries of pretraining and is stretched in every forward pass. The official code
    stretches the table once, when it loads the checkpoint into an encoder for larger images. The table then has as many
    vectors as the largest slide has tokens (402 million weights at 32,768 pixels).
    """
    return EncoderConfig(
        input=PixelInput(patch_px=32),
        position=LearnedPosition(grid=32, stretch="forward" if side_px == _PRETRAINED_PX else "load"),
        width=384,
        depth=12,
        heads=16,
        segment_lengths=_SMALL_SEGMENTS[side_px],
        dilation_ratios=_RATIOS,
        padding="zero_keys",
    )


def _gigapath(width: int, depth: int, max_side_px: int = 262_144, tile_px: int = 256) -> EncoderConfig:
    """Return Prov-GigaPath's slide encoder, for its tile encoder's embeddings of 256-pixel tiles at 0.5 um per pixel.

    Segment lengths grow by a constant factor from 1024 to all tiles of the largest slide, rounded down. The store's row
    and column of a tile are its floor(y / 256) and floor(x / 256), so tile slides with `--tile-px 256 --mpp 0.5`.
    The official pipeline and finetuning request the states of all layers, and so bypass the norm after the last block.
    The plain forward pass applies this norm: `final_norm="both"`.
    """
    growth = int(math.log2((max_side_px // tile_px) ** 2)) - 10
    return EncoderConfig(
        input=EmbeddingInput(encoder="gigapath", dim=1536),
        position=SinCosPosition(),
        width=width,
        depth=depth,
        heads=16,
        segment_lengths=tuple(int(2 ** (10 + growth * i / 4)) for i in range(5)),
        dilation_ratios=_RATIOS,
        padding="zero_keys",
        dropout=0.25,
        class_token=True,
        final_norm="slide",
        pooling="class",
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
    **{f"longvit_small_{side_px}": _longvit_small(side_px) for side_px in _SMALL_SEGMENTS},
    **{f"gigapath_slide_enc{depth}l{width}d": _gigapath(width, depth) for width, depth in _GIGAPATH.items()},
}
"""`longvit_tiny` is for demonstrations and tests. `longvit_small_<pixels>` are the paper's encoders. `gigapath_*` are
Prov-GigaPath's encoders, whose slide vector is the class token; `pooling="mean"` gives its other slide vector."""
