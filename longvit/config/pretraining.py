"""Settings of self-supervised pretraining, free of torch: views of a slide, objective, probe of representations."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from longvit.config import required
from longvit.config.base import OptimiserConfig, RunConfig
from longvit.config.encoder import EncoderConfig
from preprocessing.config import Share, StageConfig


class ViewsConfig(StageConfig):
    """Views of a slide: unscaled crops of one region of its store; or, with tile embeddings, pieces of the slide."""

    region_px: PositiveInt = 1536
    """Side of the region from which the crops of one sample are drawn, store pixels."""
    global_px: PositiveInt = 1024
    """Side of the two global crops, store pixels."""
    local_px: PositiveInt = 512
    """Side of a local crop, store pixels."""
    local_views: NonNegativeInt = 8
    """Local crops per sample."""
    min_tissue: Share = 0.25
    """Share of a region that must be tissue; regions with less are drawn again."""
    stain_jitter: NonNegativeFloat = 0.1
    """Strength of the jitter of haematoxylin, eosin and residual (Tellez et al. 2018); 0 turns it off."""
    blur_probability: Share = 0.2
    """Share of crops that are blurred slightly."""
    global_tiles: float = Field(default=0.5, gt=0, le=1)
    """Share of a slide's tiles in each of the two global views, if a token is the embedding of a tile."""
    local_tiles: float = Field(default=0.15, gt=0, le=1)
    """Share of a slide's tiles in a local view, if a token is the embedding of a tile."""
    drop_tiles: float = Field(default=0.2, ge=0, lt=1)
    """Share of a view's tiles that are left out at random, if a token is the embedding of a tile."""


class ProbeConfig(StageConfig):
    """Probe of the representations on labelled slides during a run. The encoder is not trained on the labels."""

    table: Annotated[Path | None, required.TABLE] = None
    """Table with patients, slides and the label, in any form that `finetune` reads; slides without a store are skipped.
    Without a table there is no probe."""
    label_column: str | None = None
    """Column of the table with the label. Default: the first of oncotree_code, label, subtype, isup_grade."""
    every: PositiveInt = 10
    """Epochs between two probes; the untrained encoder and the last epoch are always probed."""
    folds: int = Field(default=5, ge=2)
    """Parts that the patients are divided into; the labels of each part are predicted from the other parts."""
    neighbours: PositiveInt = 10
    """Nearest neighbours that vote in the k-NN probe."""
    tokens: PositiveInt = 16384
    """Largest number of tokens used of a slide: whole tiles, spread evenly over the slide."""


class DinoConfig(StageConfig):
    """Self-distillation (Caron et al. 2021, arXiv:2104.14294), the paper's objective."""

    kind: Literal["dino"] = "dino"
    """`dino` matches crops with the output of a slowly moving teacher. `moco` finds the other crop of a region among
    crops of other regions. `masked` restores hidden tokens."""
    prototypes: PositiveInt = 65536
    """DINO: width of the head's output."""
    hidden: PositiveInt = 2048
    """DINO: width of the head's hidden layers."""
    bottleneck: PositiveInt = 256
    """DINO: width of the head's bottleneck."""
    batch_norm: bool = False
    """DINO: batch norm in the head's hidden layers. It removes the common part of all crops of a batch, which would
    otherwise outweigh their differences."""
    student_temperature: PositiveFloat = 0.1
    """DINO: temperature of the student's softmax."""
    teacher_temperature: PositiveFloat = 0.04
    """DINO: temperature of the teacher's softmax after its warmup; a lower temperature sharpens its output."""
    teacher_temperature_start: PositiveFloat = 0.04
    """DINO: temperature of the teacher's softmax at the start."""
    teacher_temperature_epochs: NonNegativeInt = 0
    """DINO: epochs of the teacher temperature's warmup."""
    centring: Literal["mean", "sinkhorn"] = "mean"
    """DINO: centring, which keeps the teacher from giving the same output for all crops. `mean` subtracts its running
    mean, as in the paper. `sinkhorn` shares every batch evenly among the prototypes, as in DINOv2: for cohorts of few
    slides."""
    momentum: Share = 0.996
    """DINO and MoCo: initial momentum of the network that follows the trained one; it grows to 1 along a cosine."""
    freeze_last_layer_epochs: NonNegativeInt = 1
    """DINO: first epochs, in which the head's last layer is not trained."""


class MocoConfig(StageConfig):
    """Momentum contrast (Chen et al. 2021, arXiv:2104.02057): find the other crop of a region among other crops."""

    kind: Literal["moco"] = "moco"
    """`dino` matches crops with the output of a slowly moving teacher. `moco` finds the other crop of a region among
    crops of other regions. `masked` restores hidden tokens."""
    mlp_dim: PositiveInt = 4096
    """MoCo: width of the hidden layers of the projection and prediction heads."""
    dim: PositiveInt = 256
    """MoCo: width of the vectors that are compared."""
    temperature: PositiveFloat = 0.2
    """MoCo: temperature of the softmax over the crops."""
    momentum: Share = 0.996
    """DINO and MoCo: initial momentum of the network that follows the trained one; it grows to 1 along a cosine."""
    queue: NonNegativeInt = 0
    """MoCo: crops of earlier batches used as negatives, for batches too small to be hard. 0 uses only the current
    batch, as in MoCo v3."""


class MaskedConfig(StageConfig):
    """Masked modelling (He et al. 2021, arXiv:2111.06377; Xie et al. 2021, arXiv:2111.09886): restore hidden tokens."""

    kind: Literal["masked"] = "masked"
    """`dino` matches crops with the output of a slowly moving teacher. `moco` finds the other crop of a region among
    crops of other regions. `masked` restores hidden tokens."""
    hidden_share: float = Field(default=0.6, gt=0, lt=1)
    """Masked: share of the tokens of a view that are hidden."""
    decoder_width: PositiveInt = 512
    """Masked: width of the hidden layer of the head that restores the tokens."""


class PretrainOptimiserConfig(OptimiserConfig):
    """AdamW with linear warmup and cosine decay; DINO's defaults."""

    epochs: PositiveInt = 100
    """Passes over the data."""
    learning_rate: PositiveFloat = 5e-4
    """Learning rate after warmup."""
    warmup_epochs: NonNegativeFloat = 10.0
    """Epochs of linear warmup."""
    weight_decay: NonNegativeFloat = 0.04
    """Weight decay of matrices; biases, norms and vectors are not decayed."""
    clip_norm: PositiveFloat | None = 3.0
    """Largest norm of the gradient; null turns clipping off."""


class PretrainConfig(RunConfig):
    """Pretraining of an encoder on stores, without labels."""

    stores: Annotated[Path, required.STORES]
    """Folder of stores."""
    encoder: EncoderConfig = EncoderConfig()
    """Encoder to pretrain."""
    objective: Annotated[DinoConfig | MocoConfig | MaskedConfig, Field(discriminator="kind")] = DinoConfig()
    """Self-supervised objective. The saved encoder does not depend on the choice."""
    views: ViewsConfig = ViewsConfig()
    """Views of a slide."""
    optimiser: PretrainOptimiserConfig = PretrainOptimiserConfig()
    """Optimiser."""
    batch_size: PositiveInt = 64
    """Regions in a batch."""
    regions_per_slide: PositiveInt = 100
    """Mean number of regions drawn per slide in an epoch; the total is shared evenly among patients."""
    patients: Annotated[Path | None, required.TABLE] = None
    """CSV with the patient of each slide (`case_id`, `slide_id`). Without it, slides named by TCGA barcodes belong to
    the patient named by the first 12 characters. Any other slide is a patient of its own."""
    probe: ProbeConfig = ProbeConfig()
    """Probe of the representations on labelled slides during the run."""

    @model_validator(mode="after")
    def _views_fit(self) -> "PretrainConfig":
        if self.objective.kind == "moco" and not self.objective.queue and self.batch_size == 1:
            raise ValueError("moco compares the regions of a batch: set batch_size to 2 or more, or set a queue")
        if self.encoder.input.kind != "pixels":
            return self  # the views are pieces of slides, not crops of pixels
        views, patch = self.views, self.encoder.input.patch_px
        if not views.local_px <= views.global_px <= views.region_px:
            raise ValueError("the sides of views must satisfy local_px <= global_px <= region_px")
        if any(side % patch for side in (views.region_px, views.global_px, views.local_px)):
            raise ValueError(f"the sides of views must be multiples of the patch, {patch} pixels")
        return self
