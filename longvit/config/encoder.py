"""Encoder settings, free of torch: input tokens, positions, blocks, and the pooling to one vector per slide."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from preprocessing.config import Share, StageConfig

Stain = Literal["none", "macenko", "reinhard"]
STEM_STRIDE = 4
"""Stride of a stem's first convolution, pixels."""


class PixelInput(StageConfig):
    """Input of square pixel patches, one token each, as in LongViT."""

    kind: Literal["pixels"] = "pixels"
    """Tokens from pixels."""
    patch_px: PositiveInt = 32
    """Side of a patch, store pixels; must divide the store's tile side."""
    scale: Literal["fixed", "patch"] = "fixed"
    """`fixed` scales all pixels alike, as in the paper. `patch` removes each patch's own mean colour and contrast, so
    that shapes are equal in all stains."""
    stem: tuple[PositiveInt, ...] = ()
    """Channels of the convolutions within each patch, before its projection. The first convolution has a stride of 4
    pixels, every further convolution of 2. They learn texture from few slides. If empty, the pixels themselves are
    projected, as in the paper."""
    min_tissue: Share = 0.0
    """Smallest share of tissue of a patch, by the overview's mask, which has pixels of 8 um. Other patches of a slide
    are left out, but for the patch of each tile with the most tissue. Pretraining's crops keep all patches. 0 keeps all
    patches of a tile, as in the paper."""
    stain: Stain = "none"
    """Normalisation of a slide's colours to a reference, from one estimate per slide. `macenko` changes the densities
    of haematoxylin and eosin, `reinhard` the mean and deviation of the colours. `none` keeps the colours, as in the
    paper."""

    @model_validator(mode="after")
    def _stem_fits(self) -> "PixelInput":
        if self.stem and self.patch_px % STEM_STRIDE:
            raise ValueError(f"a stem needs a patch_px that is a multiple of {STEM_STRIDE}, not {self.patch_px}")
        return self

    @property
    def width(self) -> int:
        """Numbers per token."""
        return 3 * self.patch_px**2

    @property
    def features(self) -> None:
        """None, because no features of the store are read."""


class EmbeddingInput(StageConfig):
    """Input of tile embeddings, one token per tile, computed beforehand by a tile encoder, as in Prov-GigaPath."""

    kind: Literal["embeddings"] = "embeddings"
    """Tokens from `embeddings/<encoder>` of the store."""
    encoder: str
    """Name under which `preprocessing.add_embeddings` stored the embeddings."""
    dim: PositiveInt
    """Width of a tile's embedding."""

    @property
    def width(self) -> int:
        """Numbers per token."""
        return self.dim

    @property
    def features(self) -> str:
        """Name of the store's features that are read."""
        return self.encoder


TokenInput = PixelInput | EmbeddingInput
"""Kind of input token; read by `longvit.tokens.source`, embedded by `longvit.model.inputs`."""


class SinCosPosition(StageConfig):
    """Fixed 2-D sine-cosine positions, computed from row and column: no table, and no limit on the slide's size."""

    kind: Literal["sincos"] = "sincos"
    """Computed from row and column."""


class LearnedPosition(StageConfig):
    """The official LongViT's learned table, resized to the slide's grid."""

    kind: Literal["learned"] = "learned"
    """A learned table, interpolated."""
    grid: PositiveInt = 32
    """Side of the table, tokens."""
    stretch: Literal["forward", "load"] = "forward"
    """`forward` scales the table as official LongViT does in a forward pass. `load` scales it as official LongViT does
    once, when it loads a checkpoint for larger images."""


class ExecutionConfig(StageConfig):
    """Memory and time of an encoder's computation. No checkpoint holds these settings and no result depends on them."""

    recompute: Literal["nothing", "all_but_attention", "blocks"] = "nothing"
    """Layers that training computes twice to save memory. `all_but_attention` costs little time on long sequences.
    `blocks` costs about a third more time and keeps a single vector per token and block."""
    heads_at_once: PositiveInt = 4
    """Heads computed together; fewer need less memory and give the same numbers."""
    tokens_at_once: PositiveInt = 4096
    """Tokens that pass together through layers that treat each token by itself; fewer need less memory and give the
    same numbers."""
    devices: int = Field(default=1, ge=1, le=1024)
    """Processes on each machine, one per device. `longvit` starts them on this machine, unless torchrun or Slurm has
    started them."""
    nodes: PositiveInt = 1
    """Machines, on each of which torchrun or Slurm starts `devices` processes. Both numbers are compared with the
    processes that take part, if one of them is above 1."""
    sequence_parallel: PositiveInt = 1
    """Processes that hold each sequence together, for slides that are too long for one device; must divide the number
    of processes. The processes of other sequences share slides or patients."""
    fsdp: bool = False
    """True to cut weights, gradients and optimiser over all processes in training (FSDP2), in place of a copy on each:
    less memory, more communication. A run can be continued without it, and the other way round. It has no effect in a
    single process, and only `pretrain` and `finetune` accept it."""
    timeout_s: int = Field(default=600, ge=1, le=604_800)
    """Time to wait for other processes before they count as lost, seconds."""


def _without_training(execution: ExecutionConfig) -> ExecutionConfig:
    if execution.fsdp:
        raise ValueError("only pretrain and finetune cut weights over processes: leave fsdp at false")
    return execution


ForwardExecution = Annotated[ExecutionConfig, AfterValidator(_without_training)]
"""Execution of an encoder that is not trained."""


OLD_EXECUTION = ("recompute", "heads_at_once", "tokens_at_once")
"""Settings of `ExecutionConfig` that were settings of the encoder in version 0.1."""


def without_execution(values: object) -> object:
    """Return an encoder's settings without the settings of its execution, which files of version 0.1 contain."""
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if name not in OLD_EXECUTION}


def paired(segment_lengths: Sequence[int], dilation_ratios: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (segment length, dilation ratio) of each attention branch, tokens.

    Raises:
        ValueError: The two lists differ in length.
    """
    return tuple(zip(segment_lengths, dilation_ratios, strict=True))


class EncoderConfig(StageConfig):
    """LongViT: tokens -> LongNet blocks -> one vector per token. The defaults are LongViT-small's at 1,024 pixels."""

    input: Annotated[TokenInput, Field(discriminator="kind")] = PixelInput()
    """Kind of input token: pixel patches or tile embeddings."""
    position: Annotated[SinCosPosition | LearnedPosition, Field(discriminator="kind")] = SinCosPosition()
    """Encoding of a token's place in its slide."""
    width: PositiveInt = Field(default=384, multiple_of=4)
    """Width D of a token."""
    depth: PositiveInt = 12
    """Number of LongNet blocks."""
    heads: PositiveInt = 16
    """Attention heads H; must divide the width."""
    ffn_ratio: PositiveFloat = 4.0
    """Width of the feed-forward layer over D."""
    segment_lengths: tuple[PositiveInt, ...] = (64, 128, 256, 512, 1024)
    """Segment length w of each attention branch, tokens."""
    dilation_ratios: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
    """Dilation r of each attention branch."""
    padding: Literal["masked", "zero_keys"] = "masked"
    """`masked` leaves padding out of the softmax; `zero_keys` includes it, as in the official code."""
    dropout: Share = 0.0
    """Dropout after attention and feed-forward."""
    drop_path: Share = 0.1
    """Stochastic depth at the last block, growing linearly from 0."""
    class_token: bool = False
    """Put a learned token without a place before the tokens of the slide, as Prov-GigaPath does."""
    final_norm: Literal["none", "slide", "both"] = "none"
    """`none` as in LongViT. `slide` normalises the slide's vector, as in Prov-GigaPath's pipeline. `both` also
    normalises the tokens after the last block, as Prov-GigaPath's forward pass does by default."""
    pooling: Literal["mean", "class"] = "mean"
    """The slide's vector: the mean of its tokens, or the output of the class token."""

    @property
    def branches(self) -> tuple[tuple[int, int], ...]:
        """(Segment length, dilation ratio) of each attention branch, tokens."""
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
                f"{len(self.dilation_ratios)}; give each branch one entry of both"
            )
        return self
