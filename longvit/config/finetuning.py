"""Settings of finetuning, and of prediction with finetuned models."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from longvit.config import required
from longvit.config.base import Device, OptimiserConfig, RunConfig
from longvit.config.cohort import SplitsConfig
from longvit.config.encoder import EncoderConfig, ExecutionConfig, ForwardExecution, Stain
from preprocessing.config import Share, StageConfig

Baseline = Literal["abmil", "mean", "clinical"]


class FinetuneOptimiserConfig(OptimiserConfig):
    """AdamW with linear warmup and cosine decay, and lower learning rates for the encoder's first blocks."""

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of each block relative to the next block's; for the last block, relative to the head's. 1 trains
    all blocks alike, as LongViT does."""


class FinetuneConfig(SplitsConfig, RunConfig):
    """Encoder + table + splits -> one model per fold, and predictions.csv."""

    stores: Annotated[Path, required.STORES]
    """Folder of stores."""
    checkpoint: Annotated[Path | None, required.CHECKPOINT] = None
    """Pretrained encoder, `encoder.safetensors`. Without it, the encoder starts from random weights."""
    encoder: EncoderConfig = EncoderConfig()
    """Encoder to use without a checkpoint. A checkpoint brings its own encoder settings, which the run's config.yaml
    repeats."""
    trained_blocks: NonNegativeInt | None = None
    """Number of the encoder's last blocks to train. 0 trains the head alone, on representations computed once. Default:
    all blocks, and the embedding of patches with them."""
    drop_path: Share | None = None
    """Stochastic depth of the encoder's last block in this training; default: the encoder's own."""
    segment_lengths: tuple[PositiveInt, ...] | None = None
    """Segment length of each attention branch in this training, tokens; default: the encoder's own. An encoder
    pretrained on regions has segments as long as regions; longer segments let it attend over a whole slide."""
    min_tissue: Share | None = None
    """Smallest share of tissue of a patch, 0 to 1; other patches are left out, but for the best patch of each tile.
    Default: the encoder's own (`encoder.input.min_tissue`)."""
    stain: Stain | None = None
    """Normalisation of the colours of slides, `none`, `macenko` or `reinhard`. Default: the encoder's own
    (`encoder.input.stain`)."""
    pooling: Literal["encoder", "attention"] = "encoder"
    """Pooling of tokens into a slide's vector. `encoder`: the encoder's own, the mean of its tokens or its class token.
    `attention`: gated attention over its tokens (ABMIL), trained with the head."""
    fusion: Literal["late", "early"] = "late"
    """Combination of a patient's slides. `late` encodes each slide by itself and averages the outputs. `early` encodes
    all slides as one sequence, slide below slide with an empty gap between them."""
    window: PositiveInt = 16
    """Patients whose loss is computed together; each slide is still a sequence of its own length."""
    select: Literal["last", "best_val"] = "last"
    """Epoch whose weights are used: the last epoch, or the epoch with the lowest loss on val. Test is never used."""
    patience: PositiveInt | None = None
    """Epochs without a lower loss on val after which training stops; needs `select: best_val`. Default: train all
    epochs."""
    shuffles: NonNegativeInt = 0
    """Controls: models trained on shuffled labels, this many per fold; their predictions are written next to the real
    ones."""
    baselines: tuple[Baseline, ...] = ()
    """Models to beat, trained on the same folds and controls by fixed recipes. `abmil`: gated attention over tiles.
    `mean`: a linear head on the mean of the tiles. `clinical`: Cox regression on age, sex and stage, for survival.
    `abmil` and `mean` use the embeddings that the encoder reads. If the encoder reads pixels, they use its tokens
    before this training, averaged per tile."""
    clinical: Annotated[Path | None, required.CLINICAL] = None
    """Table of patients for the baseline `clinical` (`case_id` or `patient_id`; age; sex, gender or is_female; stage).
    Default: these columns of `table`."""
    parallel_folds: PositiveInt = 1
    """Models trained at once, each in its own process with its share of the threads. Each needs the memory of a
    training, also on the accelerator, which all share."""
    optimiser: FinetuneOptimiserConfig = FinetuneOptimiserConfig()
    """Optimiser."""

    @property
    def frozen(self) -> bool:
        """Return whether the encoder is not trained, so that its representations are computed once."""
        return self.trained_blocks == 0

    @property
    def brief(self) -> bool:
        """Return whether a model is a linear head on vectors in memory, a fit of seconds."""
        return self.frozen and self.pooling == "encoder"

    @model_validator(mode="after")
    def _stops_where_it_selects(self) -> "FinetuneConfig":
        if self.patience is not None and self.select != "best_val":
            raise ValueError("patience monitors the loss on val: it needs select best_val")
        return self


class PredictConfig(StageConfig):
    """Models of a run + new stores -> predictions.csv of their ensemble."""

    run: Annotated[Path, required.RUN]
    """Folder of a finished `longvit finetune`; the models of all its folds are averaged."""
    stores: Annotated[Path, required.STORES]
    """Folder of the new stores, tiled as the stores that the models were trained on."""
    out: Path
    """Folder for `predictions.csv`."""
    table: Annotated[Path | None, required.TABLE] = None
    """CSV or Excel with the patient of each slide (`case_id`, `slide_id`). Without it, slides named by TCGA barcodes
    belong to the patient named by the first 12 characters. Any other slide is a patient of its own."""
    accept: tuple[Literal["seen"], ...] = ()
    """`seen` also predicts patients that a model was trained or selected on, and marks them as `train`."""
    device: Device = "auto"
    """Device to compute on; `auto` takes the accelerator if there is one."""
    execution: ForwardExecution = ExecutionConfig()
    """Execution of the encoder; a run can be continued with other values."""
    overwrite: bool = False
    """Start again: first remove the earlier prediction in `out`, and keep nothing of it."""
