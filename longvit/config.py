"""Settings of every verb, free of torch: the sentence under a field is its help text and its YAML comment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from preprocessing.config import Share, StageConfig
from preprocessing.config import TileConfig as TileConfig


class PixelInput(StageConfig):
    """Tokens are square patches of pixels, as in LongViT."""

    kind: Literal["pixels"] = "pixels"
    """Tokens from pixels."""
    patch_px: PositiveInt = 32
    """Side of a patch, store pixels; it divides the store's tile side."""


class EmbeddingInput(StageConfig):
    """Tokens are tiles, each embedded beforehand by a tile encoder, as in Prov-GigaPath."""

    kind: Literal["embeddings"] = "embeddings"
    """Tokens from `embeddings/<encoder>` of the store."""
    encoder: str
    """Name under which `longvit embed` wrote the embeddings."""
    dim: PositiveInt
    """Width of one embedding."""


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


class EncoderConfig(StageConfig):
    """LongViT: tokens -> LongNet blocks -> one vector per token. Defaults are LongViT-small's at 1,024 pixels."""

    input: Annotated[PixelInput | EmbeddingInput, Field(discriminator="kind")] = PixelInput()
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

    @model_validator(mode="after")
    def _consistent(self) -> "EncoderConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if len(self.segment_lengths) != len(self.dilation_ratios):
            raise ValueError(
                f"segment_lengths has {len(self.segment_lengths)} entries, dilation_ratios {len(self.dilation_ratios)}; "
                "they are paired, one of each per branch"
            )
        return self


class EvaluateConfig(StageConfig):
    """predictions.csv -> metrics.json and report.html. Loads no torch."""

    predictions: Path
    """A `predictions.csv` as `longvit finetune` writes it."""
    out: Path | None = None
    """Folder for `metrics.json`, `report.html` and figures; default: beside the predictions."""
    split: Literal["test", "val"] = "test"
    """Part of each fold that is evaluated."""
