"""Cost of encoding a slide: multiplications and additions per token, by part of the encoder."""

from typing import NamedTuple

from longvit.config import STEM_STRIDE, EncoderConfig, PixelInput
from longvit.model.attention.plan import AttentionPlan


class TokenCost(NamedTuple):
    """Multiplications and additions per token of a slide, by part of the encoder."""

    embedding: float
    """Cost of embedding, once."""
    attention: float
    """Cost of attention, in every block."""
    feed_forward: float
    """Cost of the feed-forward layer, in every block."""

    def of_slide(self, tokens: int, config: EncoderConfig) -> float:
        """Return the multiplications and additions for all tokens of a slide in the whole encoder."""
        in_blocks = (tokens + config.class_token) * config.depth * (self.attention + self.feed_forward)
        return tokens * self.embedding + in_blocks


def work_per_token(config: EncoderConfig, plan: AttentionPlan) -> TokenCost:
    """Return the cost of a token in a forward pass with this plan."""
    width = config.width
    return TokenCost(
        embedding=float(_EMBEDDING[config.input.kind](config.input, width)),
        attention=8 * width**2 + 4 * width * plan.keys_per_query,
        feed_forward=4 * config.ffn_ratio * width**2,
    )


def _work_of_pixels(source: PixelInput, width: int) -> int:
    channels_in, kernel, stride, side, work = 3, STEM_STRIDE, STEM_STRIDE, source.patch_px, 0
    for channels in source.stem:
        side = -(-side // stride)
        work += 2 * channels_in * kernel**2 * channels * side**2
        channels_in, kernel, stride = channels, 3, 2
    return work + 2 * (channels_in if source.stem else source.width) * width


_EMBEDDING = {"pixels": _work_of_pixels, "embeddings": lambda source, width: 2 * source.width * width}
"""Multiplications and additions of embedding one token, for each kind of input."""
