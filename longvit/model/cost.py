"""Cost of encoding a slide: operations per token by part of the encoder, and memory and bytes sent of a rank."""

import math
from typing import NamedTuple

import torch

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


def sent_bytes(config: EncoderConfig, plan: AttentionPlan, dtype: torch.dtype, *, training: bool = False) -> int:
    """Return the bytes of keys, values and their gradients that a rank sends in a pass through all blocks.

    With s tokens sent and r received per block, heads of K numbers and numbers of e bytes, a forward pass sends
    2 K e s bytes per block. The backward pass sends the keys and values again, and the gradients of received keys and
    values, 2 K e (s + r). With `recompute: blocks` it also repeats the forward pass.
    """
    tokens = plan.sent_tokens
    if training:
        tokens += plan.sent_tokens * (1 + (plan.execution.recompute == "blocks")) + plan.received_tokens
    return config.depth * 2 * (config.width // config.heads) * dtype.itemsize * tokens


def memory_of_rank(config: EncoderConfig, plan: AttentionPlan, dtype: torch.dtype, *, training: bool = False) -> int:
    """Return the peak memory of a rank's tokens in the blocks, bytes; weights and `tokens_at_once` are left out.

    With l tokens of D numbers on the rank, h heads at once of K numbers, e bytes a number and s = max(e, 4):

    - forward, with `overwrite`: tokens and output of the heads, q, k and v of h heads, their logsumexp, and in types
      narrower than float32 their merged output: l (2 D e + 3 h K e + h s [+ h K s]). In these types, at least the
      tokens in both types, for their mean: l D (e + s).
    - training: what all blocks keep, and the larger of the backward passes of feed-forward layer and attention:
      l (kept + max(3 D e, 2 D e + 3 h K (e + s))). With `all_but_attention`, a block keeps 3 D e + H s; with `blocks`,
      each keeps D e, and one block 2 D e + H s in addition.

    Both include the messages of h heads, 2 K e (sent + received), and copies of the largest call, n tokens of all of
    its heads: 2 n K s, in training 5 n K s.

    Raises:
        ValueError: Training with `recompute: nothing`, of which there is no model.
    """
    exact, head = max(dtype.itemsize, 4), config.width // config.heads
    token, at_once = config.width * dtype.itemsize, min(config.heads, plan.execution.heads_at_once)
    if not training:
        narrow = dtype.itemsize < exact
        per_token = 2 * token + at_once * (3 * head * dtype.itemsize + exact + head * exact * narrow)
        per_token = max(per_token, narrow * config.width * (dtype.itemsize + exact))
    else:
        logsumexp, recompute = config.heads * exact, plan.execution.recompute
        if recompute == "nothing":
            raise ValueError("the memory of training is modelled for recompute all_but_attention and blocks")
        kept = config.depth * token + 2 * token + logsumexp
        if recompute == "all_but_attention":
            kept = config.depth * (3 * token + logsumexp)
        per_token = kept + max(3 * token, 2 * token + 3 * at_once * head * (dtype.itemsize + exact))
    borders = plan.shares.borders if plan.shares else (0, max(plan.lengths))
    rank = plan.shares.rank if plan.shares else 0
    tokens = len(plan.lengths) * (borders[rank + 1] - borders[rank])
    calls = [group for _, groups in plan.calls() for group in groups]
    copies = (5 if training else 2) * head * exact * max(math.prod(group.shape) for group in calls)
    messages = 2 * head * dtype.itemsize * (plan.sent_tokens + plan.received_tokens) * at_once // config.heads
    return tokens * per_token + copies + messages


def _work_of_pixels(source: PixelInput, width: int) -> int:
    channels_in, kernel, stride, side, work = 3, STEM_STRIDE, STEM_STRIDE, source.patch_px, 0
    for channels in source.stem:
        side = -(-side // stride)
        work += 2 * channels_in * kernel**2 * channels * side**2
        channels_in, kernel, stride = channels, 3, 2
    return work + 2 * (channels_in if source.stem else source.width) * width


_EMBEDDING = {"pixels": _work_of_pixels, "embeddings": lambda source, width: 2 * source.width * width}
"""Multiplications and additions of embedding one token, for each kind of input."""
