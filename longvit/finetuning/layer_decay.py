"""Layers of a model's parameters, which decide whether and how fast each parameter is trained."""

import re

from longvit.model.encoder import Block
from longvit.model.predictor import SlideModel

_BLOCK = re.compile(r"encoder\.encoder\.layers\.(\d+)\.")
_EMBEDDING = ("encoder.input.", "encoder.position.", "encoder.class_token.")


def layer_of(name: str, depth: int) -> int:
    """Return the layer of a parameter of a `SlideModel`, numbered as in BEiT and LongViT.

    Args:
        name: Name of the parameter.
        depth: Number of blocks of the encoder.

    Returns:
        0 for the embedding of patches and places, 1 to `depth` for the blocks, `depth + 1` for all layers after them.
    """
    if block := _BLOCK.match(name):
        return int(block[1]) + 1
    return 0 if name.startswith(_EMBEDDING) else depth + 1


def train_last_blocks(model: SlideModel, blocks: int | None) -> list[Block]:
    """Freeze the encoder except its last blocks and the norms after them; the head is always trained.

    Args:
        model: The model.
        blocks: Number of blocks to train; 0 also freezes the norms, None trains everything.

    Returns:
        The frozen blocks.
    """
    if model.encoder is None:
        return []
    depth = model.encoder.config.depth
    for name, parameter in model.encoder.named_parameters(prefix="encoder"):
        last = blocks is None or (blocks > 0 and layer_of(name, depth) > depth - blocks)
        parameter.requires_grad_(last)
    return [] if blocks is None else model.encoder.encoder.blocks[: depth - blocks]
