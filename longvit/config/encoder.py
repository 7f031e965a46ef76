"""Settings of the encoder, free of torch: what a token is, how its place enters, the blocks, the slide's vector."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from preprocessing.config import Share, StageConfig

STEM_STRIDE = 4
"""Pixels from one place to the next of a stem's first convolution."""


class PixelInput(StageConfig):
    """Tokens are square patches of pixels, as in LongViT."""

    kind: Literal["pixels"] = "pixels"
    """Tokens from pixels."""
    patch_px: PositiveInt = 32
    """Side of a patch, store pixels; it divides the store's tile side."""
    scale: Literal["fixed", "patch"] = "fixed"
    """`fixed` scales all pixels alike, as the paper does; `patch` takes each patch's own mean colour and contrast out,
    so that shape is seen whatever the stain."""
    stem: tuple[PositiveInt, ...] = ()
    """Channels of convolutions within each patch, before it is projected: the first has a stride of 4 pixels, every
    further one of 2. They learn texture from few slides. Without any, the pixels themselves are projected, as in the
    paper."""

    @model_validator(mode="after")
    def _stem_fits(self) -> "PixelInput":
        if self.stem and self.patch_px % STEM_STRIDE:
            raise ValueError(f"a stem needs a patch_px that is a multiple of {STEM_STRIDE}, not {self.patch_px}")
        return self

    @property
    def width(self) -> int:
        """Return the numbers in a token."""
        return 3 * self.patch_px**2

    @property
    def features(self) -> None:
        """Return None: no features of the store are read."""


class EmbeddingInput(StageConfig):
    """Tokens are tiles, each embedded beforehand by a tile encoder, as in Prov-GigaPath."""

    kind: Literal["embeddings"] = "embeddings"
    """Tokens from `embeddings/<encoder>` of the store."""
    encoder: str
    """Name under which `preprocessing.add_embeddings` wrote the embeddings."""
    dim: PositiveInt
    """Width of one embedding."""

    @property
    def width(self) -> int:
        """Return the numbers in a token."""
        return self.dim

    @property
    def features(self) -> str:
        """Return the name of the store's features that are read."""
        return self.encoder


TokenInput = PixelInput | EmbeddingInput
"""What a token is; `longvit.tokens.source` reads it, `longvit.model.inputs` embeds it."""


class SinCosPosition(StageConfig):
    """Fixed 2-D sine-cosine positions computed from row and column: no table, no largest slide."""

    kind: Literal["sincos"] = "sincos"
    """Computed from row and column."""


class LearnedPosition(StageConfig):
    """The official LongViT's learned table, resized to the slide's grid."""

    kind: Literal["learned"] = "learned"
    """A learned table, interpolated."""
    grid: PositiveInt = 32
    """Side of the table, tokens."""
    stretch: Literal["forward", "load"] = "forward"
    """`forward` scales the table as official LongViT does in a forward pass, `load` as it does once for larger images,
    when it loads a checkpoint."""


class ExecutionConfig(StageConfig):
    """How an encoder is computed, which decides memory and time; no checkpoint holds it, no result depends on it."""

    recompute: Literal["nothing", "all_but_attention", "blocks"] = "nothing"
    """Layers that training computes twice to save memory: `all_but_attention` costs little time on long sequences,
    `blocks` about a third more, and keeps a single vector per token and block."""
    heads_at_once: PositiveInt = 4
    """Heads computed together; fewer need less memory and give the same numbers."""
    tokens_at_once: PositiveInt = 4096
    """Tokens that pass together through layers that treat each by itself; fewer need less memory, same numbers."""


def without_execution(values: object) -> object:
    """Return an encoder's settings without those of `ExecutionConfig`, which files of version 0.1 hold among them."""
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if name not in ExecutionConfig.model_fields}


def paired(segment_lengths: Sequence[int], dilation_ratios: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (segment length, dilation ratio) of each branch of the attention, tokens.

    Raises:
        ValueError: The two lists differ in length.
    """
    return tuple(zip(segment_lengths, dilation_ratios, strict=True))


class EncoderConfig(StageConfig):
    """LongViT: tokens -> LongNet blocks -> one vector per token. Defaults are LongViT-small's at 1,024 pixels."""

    input: Annotated[TokenInput, Field(discriminator="kind")] = PixelInput()
    """What a token is."""
    position: Annotated[SinCosPosition | LearnedPosition, Field(discriminator="kind")] = SinCosPosition()
    """How a token's place enters."""
    width: PositiveInt = Field(default=384, multiple_of=4)
    """Width D of a token."""
    depth: PositiveInt = 12
    """Number of LongNet blocks."""
    heads: PositiveInt = 16
    """Attention heads H; they divide the width."""
    ffn_ratio: PositiveFloat = 4.0
    """Width of the feed-forward layer over D."""
    segment_lengths: tuple[PositiveInt, ...] = (64, 128, 256, 512, 1024)
    """Segment length w of each attention branch, tokens."""
    dilation_ratios: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
    """Dilation r of each attention branch."""
    padding: Literal["masked", "zero_keys"] = "masked"
    """`masked` leaves padding out of the softmax; `zero_keys` reproduces the official code, where it takes part."""
    dropout: Share = 0.0
    """Dropout after attention and feed-forward."""
    drop_path: Share = 0.1
    """Stochastic depth at the last block, growing linearly from 0."""
    class_token: bool = False
    """Put a learned token that stands nowhere before those of the slide, as Prov-GigaPath does."""
    final_norm: Literal["none", "slide", "both"] = "none"
    """`none` as in LongViT; `slide` normalises the slide's vector, as Prov-GigaPath's pipeline does; `both` also the
    tokens after the last block, as its forward pass does by default."""
    pooling: Literal["mean", "class"] = "mean"
    """What the slide's vector is: the mean of its tokens, or what the class token has become."""

    @property
    def branches(self) -> tuple[tuple[int, int], ...]:
        """Return (segment length, dilation ratio) of each branch of the attention, tokens."""
        return paired(self.segment_lengths, self.dilation_ratios)

    @model_validator(mode="after")
    def _consistent(self) -> "EncoderConfig":
        if self.pooling == "class" and not self.class_token:
            raise ValueError("pooling class needs class_token true")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if len(self.segment_lengths) != len(self.dilation_ratios):
            raise ValueError(
                f"segment_lengths has {len(self.segment_lengths)} entries and dilation_ratios "
                f"{len(self.dilation_ratios)}; they are paired, one of each per branch"
            )
        return self
