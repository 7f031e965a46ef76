"""Settings of every verb, free of torch: the sentence under a field is its help text and its YAML comment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from longvit.cohort_config import AuditConfig as AuditConfig
from longvit.cohort_config import CoxTask as CoxTask
from longvit.cohort_config import SplitConfig as SplitConfig
from longvit.cohort_config import SplitsConfig
from longvit.cohort_config import SubtypeTask as SubtypeTask
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
from preprocessing.config import StageConfig
from preprocessing.config import TileConfig as TileConfig

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
    patients: Path | None = None
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

    stores: Path
    """Folder of stores."""
    checkpoint: Path | None = None
    """Pretrained encoder, `encoder.safetensors`; without it the encoder starts at random."""
    encoder: EncoderConfig = EncoderConfig()
    """The encoder when there is no checkpoint; a checkpoint brings its own."""
    freeze_encoder: bool = False
    """Train the head alone, on representations computed once."""
    window: PositiveInt = 16
    """Patients whose loss is computed together; each slide is still a sequence of its own length."""
    select: Literal["last", "best_val"] = "last"
    """Which epoch's weights are used: the last, or the one with the lowest loss on val. Test is never looked at."""
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
    """Folder for `metrics.json`, `report.html`, `report.md` and figures; default: beside the predictions."""
    split: Literal["test", "val"] = "test"
    """Part of each fold that is evaluated."""
    name: str = "Model"
    """What the tables call the model."""
    baseline: dict[str, Path] = Field(default={})
    """Predictions of baselines for the same patients in the same folds, by name: `--baseline.abmil abmil.csv`; each
    gets a row beside the model, with the difference between the two."""
    compare: Path | None = None
    """Predictions of one more model for the same patients, called by the name of its file."""
    clinical: Path | None = None
    """Table of patients (`patient_id` or `case_id`; age, sex or gender or is_female, stage): the risk is put beside
    these in a Cox regression. Survival only."""


VERBS: dict[str, type[StageConfig]] = {
    "tile": TileConfig,
    "pretrain": PretrainConfig,
    "split": SplitConfig,
    "audit": AuditConfig,
    "finetune": FinetuneConfig,
    "encode": EncodeConfig,
    "evaluate": EvaluateConfig,
    "explain": ExplainConfig,
    "demo": DemoConfig,
}
"""Verb of the command line -> its settings."""
