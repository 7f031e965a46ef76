"""Progress bar of a slide that takes up to half an hour: it moves twice in every block, by the work that is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from longvit.config import STEM_STRIDE, EncoderConfig, PixelInput
from longvit.model import LongViT
from longvit.model.attention.plan import AttentionPlan

_DAY_S = 86_400.0


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


def progress_bar() -> Progress:
    """Return a bar that estimates over the whole run, because two steps of a large slide may be minutes apart."""
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, speed_estimate_period=_DAY_S)


@contextmanager
def watched(encoder: LongViT, work: TokenCost, done: Callable[[int, float], None]) -> Iterator[None]:
    """Report progress from within the blocks while slides are encoded in this context.

    Args:
        encoder: The encoder.
        work: Cost of a token of the slide.
        done: Function called after each attention and each feed-forward layer, with the block's number (from 1) and the
            work.
    """

    def report(block: int, per_token: float) -> Callable[[nn.Module, tuple, Tensor], None]:
        return lambda module, inputs, out: done(block, per_token * out.shape[-2])

    hooks = []
    for block, layer in enumerate(encoder.encoder.blocks, start=1):
        hooks.append(layer.self_attn.register_forward_hook(report(block, work.attention)))
        hooks.append(layer.ffn.register_forward_hook(report(block, work.feed_forward)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
