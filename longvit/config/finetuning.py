"""Settings of finetuning and of prediction with its models."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from longvit.config import required
from longvit.config.base import Device, OptimiserConfig, RunConfig
from longvit.config.cohort import SplitsConfig
from longvit.config.encoder import EncoderConfig, ExecutionConfig
from preprocessing.config import Share, StageConfig

Baseline = Literal["abmil", "mean", "clinical"]


class FinetuneOptimiserConfig(OptimiserConfig):
    """AdamW, linear warmup, cosine decay, and less of it for the encoder's first blocks."""

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of each block over that of the block after it; the last one's over the head's. 1 trains all
    alike, as LongViT does."""


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
    execution: ExecutionConfig = ExecutionConfig()
    """How the encoder is computed; a run may go on with other values."""
    overwrite: bool = False
    """Start again: first remove the earlier prediction in `out`, and keep nothing of it."""
