"""Settings of every verb, free of torch: the sentence under a field is its help text and its YAML comment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from longvit.objective import DinoConfig as DinoConfig
from longvit.objective import ViewsConfig as ViewsConfig
from preprocessing.config import Share, StageConfig
from preprocessing.config import TileConfig as TileConfig


class PixelInput(StageConfig):
    """Tokens are square patches of pixels, as in LongViT."""

    kind: Literal["pixels"] = "pixels"
    """Tokens from pixels."""
    patch_px: PositiveInt = 32
    """Side of a patch, store pixels; it divides the store's tile side."""
    scale: Literal["fixed", "patch"] = "fixed"
    """`fixed` scales all pixels alike, as the paper does; `patch` takes each patch's own mean colour and contrast out,
    so that shape is seen whatever the stain."""


class EmbeddingInput(StageConfig):
    """Tokens are tiles, each embedded beforehand by a tile encoder, as in Prov-GigaPath."""

    kind: Literal["embeddings"] = "embeddings"
    """Tokens from `embeddings/<encoder>` of the store."""
    encoder: str
    """Name under which `preprocessing.add_embeddings` wrote the embeddings."""
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
    stretch: Literal["forward", "load"] = "forward"
    """`forward` scales the table as official LongViT does in a forward pass, `load` as it does once for larger images,
    when it loads a checkpoint."""


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
    class_token: bool = False
    """Put a learned token that stands nowhere before those of the slide, as Prov-GigaPath does."""
    final_norm: bool = False
    """Normalise after the last block, and the slide's vector once more, as Prov-GigaPath does."""
    pooling: Literal["mean", "class"] = "mean"
    """What the slide's vector is: the mean of its tokens, or what the class token has become."""

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


Device = Literal["auto", "cpu", "cuda", "mps"]


class RunConfig(StageConfig):
    """What every training run has. A run started again in the same folder goes on where it stopped."""

    out: Path
    """Folder of the run: config, provenance, metrics, checkpoints, results."""
    seed: NonNegativeInt = 0
    """Seed of everything that is drawn at random."""
    device: Device = "auto"
    """Where to compute; `auto` takes the accelerator if there is one."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic: float32, or bfloat16 under autocast."""
    loader_workers: NonNegativeInt = 2
    """Processes that read stores; 0 reads in the training process."""


class OptimiserConfig(StageConfig):
    """AdamW, linear warmup, cosine decay."""

    epochs: PositiveInt = 10
    """Passes over the data."""
    learning_rate: PositiveFloat = 5e-5
    """Learning rate after warmup."""
    min_learning_rate: NonNegativeFloat = 1e-6
    """Learning rate at the end."""
    warmup_epochs: NonNegativeFloat = 1.0
    """Epochs of linear warmup."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay of matrices; biases, norms and vectors have none."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the gradient; none leaves it as it is."""


class PretrainOptimiserConfig(OptimiserConfig):
    """AdamW, linear warmup, cosine decay; DINO's defaults."""

    epochs: PositiveInt = 100
    """Passes over the data."""
    learning_rate: PositiveFloat = 5e-4
    """Learning rate after warmup."""
    warmup_epochs: NonNegativeFloat = 10.0
    """Epochs of linear warmup."""
    weight_decay: NonNegativeFloat = 0.04
    """Weight decay of matrices; biases, norms and vectors have none."""
    clip_norm: PositiveFloat | None = 3.0
    """Largest norm of the gradient; none leaves it as it is."""


class PretrainConfig(RunConfig):
    """Stores -> encoder, without labels."""

    stores: Path
    """Folder of stores."""
    encoder: EncoderConfig = EncoderConfig()
    """The encoder."""
    objective: DinoConfig = DinoConfig()
    """The objective."""
    views: ViewsConfig = ViewsConfig()
    """The views."""
    optimiser: PretrainOptimiserConfig = PretrainOptimiserConfig()
    """The optimiser."""
    batch_size: PositiveInt = 64
    """Regions in a batch."""
    regions_per_slide: PositiveInt = 100
    """Regions drawn from each slide in an epoch."""

    @model_validator(mode="after")
    def _views_fit(self) -> "PretrainConfig":
        if self.encoder.input.kind != "pixels":
            raise ValueError("DINO on crops needs encoder.input.kind pixels")
        views, patch = self.views, self.encoder.input.patch_px
        if not views.local_px <= views.global_px <= views.region_px:
            raise ValueError("views need local_px <= global_px <= region_px")
        if any(side % patch for side in (views.region_px, views.global_px, views.local_px)):
            raise ValueError(f"the sides of views must be multiples of the patch, {patch} pixels")
        return self


class SubtypeTask(StageConfig):
    """Which class is this slide? Cross-entropy."""

    kind: Literal["subtype"] = "subtype"
    """Subtyping."""
    label_column: str = "oncotree_code"
    """Column of the table with the class."""
    classes: tuple[str, ...] | None = None
    """The classes, in order; patients of others are left out. Default: all in the table, sorted."""
    label_smoothing: Share = 0.0
    """Label smoothing of the cross-entropy."""


class CoxTask(StageConfig):
    """Who has the event earlier? Cox partial likelihood (Cox 1972) with Efron's ties."""

    kind: Literal["cox"] = "cox"
    """Survival."""
    time_column: str = "survival_months"
    """Column of the table with the time to the event or the last visit."""
    censorship_column: str = "censorship"
    """Column that is 1 where the event was NOT observed, as in the published TCGA tables."""
    min_events: PositiveInt = 2
    """Observed events that every window of patients holds at least."""


class FinetuneConfig(RunConfig):
    """Encoder + table + splits -> one model per fold, and predictions.csv."""

    stores: Path
    """Folder of stores."""
    table: Path
    """CSV (or zipped CSV) with `case_id`, `slide_id` and the task's columns; `.svs` endings do not matter."""
    splits: Path
    """Folder of `splits_<k>.csv` with columns train, val and test, of slide ids or case ids."""
    checkpoint: Path | None = None
    """Pretrained encoder, `encoder.safetensors`; without it the encoder starts at random."""
    encoder: EncoderConfig = EncoderConfig()
    """The encoder when there is no checkpoint; a checkpoint brings its own."""
    task: Annotated[SubtypeTask | CoxTask, Field(discriminator="kind")] = SubtypeTask()
    """What is predicted."""
    freeze_encoder: bool = False
    """Train the head alone, on representations computed once."""
    window: PositiveInt = 16
    """Patients whose loss is computed together; each slide is still a sequence of its own length."""
    select: Literal["last", "best_val"] = "last"
    """Which epoch's weights are used: the last, or the one with the lowest loss on val. Test is never looked at."""
    folds: tuple[NonNegativeInt, ...] | None = None
    """Folds to run; default all."""
    shuffles: NonNegativeInt = 0
    """Controls: models trained on shuffled labels, this many per fold, predicted beside the real ones."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """The optimiser."""

    @model_validator(mode="after")
    def _encoder_given_once(self) -> "FinetuneConfig":
        if self.checkpoint is not None and self.encoder != EncoderConfig():
            raise ValueError("give checkpoint or encoder, not both: a checkpoint holds its encoder's settings")
        return self


class EncodeConfig(RunConfig):
    """Stores -> one vector per slide."""

    stores: Path
    """A store, or a folder of stores."""
    checkpoint: Path | None = None
    """The encoder: an `encoder.safetensors`, or the folder of the run that wrote it."""
    preset: str | None = None
    """A published encoder instead, by name, such as longvit_small_32768 or gigapath_slide_enc12l768d."""
    official: Path | None = None
    """The preset's published weights, a .pth file. Without it the weights are random: good for timing, not for use."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic: float32, or bfloat16 throughout, in half the memory."""
    keep_tokens: bool = False
    """Keep the vector and the place of every token beside the slide's."""

    @model_validator(mode="after")
    def _encoder_given_once(self) -> "EncodeConfig":
        if (self.checkpoint is None) == (self.preset is None):
            raise ValueError("give either checkpoint or preset")
        if self.official is not None and self.preset is None:
            raise ValueError("official weights need the preset that says their shape")
        return self


class ExplainConfig(StageConfig):
    """Model + store -> which tokens spoke for the prediction."""

    model: Path
    """A fold's `model.safetensors`."""
    store: Path
    """The slide's store."""
    out: Path
    """Folder that receives `<slide_id>_heatmap.png` and `<slide_id>_tokens.csv`."""
    target: str | None = None
    """Class to explain; default the predicted one. A survival model explains its log hazard."""
    device: Device = "auto"
    """Where to compute."""


class DemoConfig(StageConfig):
    """The whole line, on a cohort that it makes itself."""

    out: Path = Path("demo")
    """Folder for slides, stores, runs and the report."""
    configs: Path | None = None
    """Folder of the settings (`pretrain.yaml`, ...); default: the shipped `tiny` ones."""
    cohort: Path | None = None
    """A cohort to run the line on instead: a folder with `slides/`, `dataset.csv` and `splits/`."""
    patients: PositiveInt = 40
    """Patients in the cohort that is made."""
    seed: NonNegativeInt = 0
    """Seed of the cohort that is made."""


class EvaluateConfig(StageConfig):
    """predictions.csv -> metrics.json and report.html. Loads no torch."""

    predictions: Path
    """A `predictions.csv` as `longvit finetune` writes it."""
    out: Path | None = None
    """Folder for `metrics.json`, `report.html` and figures; default: beside the predictions."""
    split: Literal["test", "val"] = "test"
    """Part of each fold that is evaluated."""


VERBS: dict[str, type[StageConfig]] = {
    "tile": TileConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "encode": EncodeConfig,
    "evaluate": EvaluateConfig,
    "explain": ExplainConfig,
    "demo": DemoConfig,
}
"""Verb of the command line -> its settings."""
