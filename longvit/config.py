"""Settings of every verb, free of torch: the sentence under a field is its help text and its YAML comment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from longvit import required
from longvit.cohort_config import AuditConfig as AuditConfig
from longvit.cohort_config import CoxTask as CoxTask
from longvit.cohort_config import NllTask as NllTask
from longvit.cohort_config import SplitConfig as SplitConfig
from longvit.cohort_config import SplitsConfig
from longvit.cohort_config import SubtypeTask as SubtypeTask
from longvit.cohort_config import Task as Task
from longvit.encoder_config import EmbeddingInput as EmbeddingInput
from longvit.encoder_config import EncoderConfig as EncoderConfig
from longvit.encoder_config import LearnedPosition as LearnedPosition
from longvit.encoder_config import PixelInput as PixelInput
from longvit.encoder_config import SinCosPosition as SinCosPosition
from longvit.objective import DinoConfig as DinoConfig
from longvit.objective import MaskedConfig as MaskedConfig
from longvit.objective import MocoConfig as MocoConfig
from longvit.objective import ProbeConfig as ProbeConfig
from longvit.objective import ViewsConfig as ViewsConfig
from longvit.view_config import Device as Device
from longvit.view_config import ExplainConfig as ExplainConfig
from longvit.view_config import Method as Method
from longvit.view_config import ViewConfig as ViewConfig
from preprocessing.config import Share, StageConfig
from preprocessing.config import TileConfig as TileConfig

Baseline = Literal["abmil", "mean", "clinical"]


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
    overwrite: bool = False
    """Start again: first remove the result of an earlier run in `out`, and keep nothing of it."""


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


class FinetuneOptimiserConfig(OptimiserConfig):
    """AdamW, linear warmup, cosine decay, and less of it for the encoder's first blocks."""

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of each block over that of the block after it; the last one's over the head's. 1 trains all
    alike, as LongViT does."""


class PretrainConfig(RunConfig):
    """Stores -> encoder, without labels."""

    stores: Annotated[Path, required.STORES]
    """Folder of stores."""
    encoder: EncoderConfig = EncoderConfig()
    """The encoder."""
    objective: Annotated[DinoConfig | MocoConfig | MaskedConfig, Field(discriminator="kind")] = DinoConfig()
    """What is learned from the views; the encoder and its checkpoint do not know which it was."""
    views: ViewsConfig = ViewsConfig()
    """The views."""
    optimiser: PretrainOptimiserConfig = PretrainOptimiserConfig()
    """The optimiser."""
    batch_size: PositiveInt = 64
    """Regions in a batch."""
    regions_per_slide: PositiveInt = 100
    """Regions drawn in an epoch for every slide there is; patients share them evenly."""
    patients: Annotated[Path | None, required.TABLE] = None
    """CSV with `case_id` and `slide_id`: who is whose slide. Without it, slides named by TCGA barcodes are taken for
    their patient's (first 12 characters), and any other slide for a patient of its own."""
    probe: ProbeConfig = ProbeConfig()
    """What the representations are worth while the run goes on, seen on labelled slides."""

    @model_validator(mode="after")
    def _views_fit(self) -> "PretrainConfig":
        if self.objective.kind == "moco" and not self.objective.queue and self.batch_size == 1:
            raise ValueError("moco tells the regions of a batch apart: it needs batch_size 2 or more, or a queue")
        if self.encoder.input.kind != "pixels":
            return self  # the views are pieces of slides
        views, patch = self.views, self.encoder.input.patch_px
        if not views.local_px <= views.global_px <= views.region_px:
            raise ValueError("views need local_px <= global_px <= region_px")
        if any(side % patch for side in (views.region_px, views.global_px, views.local_px)):
            raise ValueError(f"the sides of views must be multiples of the patch, {patch} pixels")
        return self


class FinetuneConfig(SplitsConfig, RunConfig):
    """Encoder + table + splits -> one model per fold, and predictions.csv."""

    stores: Annotated[Path, required.STORES]
    """Folder of stores."""
    checkpoint: Annotated[Path | None, required.CHECKPOINT] = None
    """Pretrained encoder, `encoder.safetensors`; without it the encoder starts at random."""
    encoder: EncoderConfig = EncoderConfig()
    """The encoder when there is no checkpoint; a checkpoint brings its own, which config.yaml of the run holds."""
    trained_blocks: NonNegativeInt | None = None
    """Last blocks of the encoder that are trained; 0 trains the head alone, on representations computed once. Default:
    all of them, and the embedding of patches with them."""
    drop_path: Share | None = None
    """Stochastic depth of the encoder's last block in this training; default: what the encoder was made with."""
    segment_lengths: tuple[PositiveInt, ...] | None = None
    """Segment length of each attention branch in this training, tokens; default: what the encoder was made with. One
    pretrained on regions has the segments of regions, and sees a whole slide with longer ones."""
    pooling: Literal["encoder", "attention"] = "encoder"
    """What a slide's vector is: the encoder's own, the mean of its tokens or its class token; or gated attention over
    its tokens (ABMIL), which is trained with the head."""
    fusion: Literal["late", "early"] = "late"
    """How the slides of a patient come together: `late` reads each by itself and averages their outputs; `early` reads
    all as one sequence, slide below slide with an empty gap between."""
    window: PositiveInt = 16
    """Patients whose loss is computed together; each slide is still a sequence of its own length."""
    select: Literal["last", "best_val"] = "last"
    """Which epoch's weights are used: the last, or the one with the lowest loss on val. Test is never looked at."""
    patience: PositiveInt | None = None
    """Stop when the loss on val has not fallen for so many epochs; with `select: best_val` only. Default: train on."""
    shuffles: NonNegativeInt = 0
    """Controls: models trained on shuffled labels, this many per fold, predicted beside the real ones."""
    baselines: tuple[Baseline, ...] = ()
    """Models to beat, trained on the same folds and controls by fixed recipes: `abmil`, gated attention over tiles, and
    `mean`, a linear head on their mean, both on the embeddings that the encoder reads, or where it reads pixels on its
    tokens before this training, averaged per tile; `clinical`, Cox regression on age, sex and stage, for survival."""
    clinical: Annotated[Path | None, required.CLINICAL] = None
    """Table of patients for the baseline `clinical` (`case_id` or `patient_id`; age, sex or gender or is_female,
    stage); default: these columns of `table`."""
    parallel_folds: PositiveInt = 1
    """Models trained at once, each in a process of its own with its share of the threads. Each needs the memory of a
    training, on the one accelerator too if there is one."""
    optimiser: FinetuneOptimiserConfig = FinetuneOptimiserConfig()
    """The optimiser."""

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is, so that its representations are computed once."""
        return self.trained_blocks == 0

    @property
    def brief(self) -> bool:
        """Whether a model is a linear head on vectors in memory, a fit of seconds."""
        return self.frozen and self.pooling == "encoder"

    @model_validator(mode="after")
    def _stops_where_it_selects(self) -> "FinetuneConfig":
        if self.patience is not None and self.select != "best_val":
            raise ValueError("patience looks at the loss on val: it needs select best_val")
        return self


class EncodeConfig(RunConfig):
    """Stores -> one vector per slide."""

    stores: Annotated[Path, required.ANY_STORES]
    """A store, or a folder of stores."""
    checkpoint: Annotated[Path | None, required.ENCODER] = None
    """The encoder: an `encoder.safetensors`, the folder of the run that wrote it, or a fold's `model.safetensors`."""
    preset: str | None = None
    """A published encoder instead, by name, such as longvit_small_32768 or gigapath_slide_enc12l768d."""
    official: Annotated[Path | None, required.WEIGHTS] = None
    """The preset's published weights, a .pth file. Without it the weights are random: good for timing, not for use."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic: float32, or bfloat16 in all layers with weights, between which tokens stay in float32."""
    loader_workers: PositiveInt = 2
    """Threads that read and decode tiles ahead of the encoder."""
    keep_tokens: bool = False
    """Keep the vector and the place of every token beside the slide's."""

    @model_validator(mode="after")
    def _encoder_given_once(self) -> "EncodeConfig":
        if self.checkpoint is not None and self.preset is not None:
            raise ValueError("give checkpoint or preset, not both: each is an encoder")
        if self.official is not None and self.preset is None:
            raise ValueError("official weights need the preset that says their shape")
        return self


class PredictConfig(StageConfig):
    """Models of a run + new stores -> predictions.csv of their ensemble."""

    run: Annotated[Path, required.RUN]
    """Folder of a finished `longvit finetune`; the models of all its folds are averaged."""
    stores: Annotated[Path, required.STORES]
    """Folder of the new stores, tiled as those the models were trained on."""
    out: Path
    """Folder that receives `predictions.csv`."""
    table: Annotated[Path | None, required.TABLE] = None
    """CSV or Excel with `case_id` and `slide_id`: who is whose slide. Without it, slides named by TCGA barcodes are
    their patient's (first 12 characters), and any other slide is a patient of its own."""
    accept: tuple[Literal["seen"], ...] = ()
    """`seen` predicts patients that a model was trained or selected on, too, and marks them as `train`."""
    device: Device = "auto"
    """Where to compute; `auto` takes the accelerator if there is one."""
    overwrite: bool = False
    """Start again: first remove the earlier prediction in `out`, and keep nothing of it."""


class DemoConfig(StageConfig):
    """The whole line, on a cohort that it makes itself."""

    out: Path = Path("demo")
    """Folder for slides, stores, runs and the report."""
    configs: Annotated[Path | None, required.FOLDER] = None
    """Folder of the settings (`pretrain.yaml`, ...); default: the shipped `tiny` ones."""
    cohort: Annotated[Path | None, required.FOLDER] = None
    """A cohort to run the line on instead: a folder with `slides/`, `dataset.csv` and `splits/`."""
    patients: PositiveInt = 40
    """Patients in the cohort that is made."""
    seed: NonNegativeInt = 0
    """Seed of the cohort that is made."""
    overwrite: bool = False
    """Start again: first remove the results of an earlier demo in `out`."""


class EvaluateConfig(StageConfig):
    """predictions.csv -> metrics.json and report.html. Loads no torch."""

    predictions: Annotated[Path, required.PREDICTIONS]
    """A `predictions.csv` as `longvit finetune` writes it."""
    out: Path | None = None
    """Folder for `metrics.json`, `report.html`, `report.md` and figures; default: beside the predictions."""
    split: Literal["test", "val"] = "test"
    """Part of each fold that is evaluated."""
    name: str = "Model"
    """What the tables call the model."""
    baseline: Annotated[dict[str, Path], required.PREDICTIONS] = Field(default={})
    """More baselines for the same patients in the same folds, by name: `--baseline.clam clam.csv`; each gets a row
    beside the model, with the difference between the two, as those do that `longvit finetune --baselines` trained."""
    compare: Annotated[Path | None, required.PREDICTIONS] = None
    """Predictions of one more model for the same patients, called by the name of its file."""
    clinical: Annotated[Path | None, required.CLINICAL] = None
    """Table of patients (`patient_id` or `case_id`; age, sex or gender or is_female, stage): the risk is put beside
    these in a Cox regression. Survival only."""
    pseudonyms: Path | None = None
    """File with a key: in all that is written patients, slides and sites go by names made of the key and their ids
    (HMAC-SHA256). A file that does not exist is made; the same key gives the same names in `evaluate`, `explain` and
    `view`."""


VERBS: dict[str, type[StageConfig]] = {
    "tile": TileConfig,
    "pretrain": PretrainConfig,
    "split": SplitConfig,
    "audit": AuditConfig,
    "finetune": FinetuneConfig,
    "predict": PredictConfig,
    "encode": EncodeConfig,
    "evaluate": EvaluateConfig,
    "explain": ExplainConfig,
    "view": ViewConfig,
    "demo": DemoConfig,
}
"""Verb of the command line -> its settings."""
