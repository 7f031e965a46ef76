"""Encoding of one store as its slide's vector, for any number of tokens: pixels are embedded as they are read."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from longvit.model.encoder import EncoderOutput, LongViT
from longvit.model.position import extent_of
from longvit.tokens.pieces import Pieces


@torch.inference_mode()
def encode_slide(
    encoder: LongViT,
    pieces: Pieces,
    threads: int = 1,
    embedded: Callable[[int], None] | None = None,
) -> EncoderOutput:
    """Encode a slide like `encoder` does, but with only a few pieces of its pixels in memory.

    Args:
        encoder: Encoder in evaluation mode; its weights set device and dtype of the computation.
        pieces: Tokens of a slide, or of several slides that are one sequence.
        threads: Number of threads that read and decode tiles.
        embedded: Function that is called after every piece with its number of tokens.

    Returns:
        The slide's vector, and a vector per token in the order of the sequence; a batch of one.

    Raises:
        StoreError: A tile is missing or damaged.
    """
    return encoder.encode(embed_slide(encoder, pieces, threads, embedded), overwrite=True)


@torch.inference_mode()
def embed_slide(
    encoder: LongViT,
    pieces: Pieces,
    threads: int = 1,
    embedded: Callable[[int], None] | None = None,
) -> Float[Tensor, "1 L D"]:
    """Return the embedded tokens of a slide in the order of the sequence; arguments are as in `encode_slide`.

    If ranks hold the sequence together, each rank reads and returns its own share.
    """
    device, group = encoder.input.proj.weight.device, encoder.group
    rc_1L2 = pieces.rc_L2[None].to(device)
    extent = extent_of(rc_1L2, torch.ones_like(rc_1L2[..., 0], dtype=torch.bool))
    part = group.share(rc_1L2.shape[1]) if group else range(rc_1L2.shape[1])
    x_1LD = torch.empty(1, len(part), encoder.config.width, dtype=encoder.dtype, device=device)
    with group.together() if group else nullcontext():
        for rank_l, piece in pieces.ahead(threads, part):
            x_1LD[:, rank_l.to(device) - part.start] = encoder.embed(piece.to(device), extent)
            if embedded is not None:
                embedded(len(rank_l))
    return x_1LD
