"""Settings of self-supervision, free of torch: views of a slide, the objective on them, the probe of what it learns."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from longvit.config import required
from longvit.config.base import OptimiserConfig, RunConfig
from longvit.config.encoder import EncoderConfig
from preprocessing.config import Share, StageConfig


class ViewsConfig(StageConfig):
    """Views of a slide: crops of one region of its store, never rescaled; or pieces of a slide of embedded tiles."""

    region_px: PositiveInt = 1536
    """Side of the region that the crops of one sample are drawn from, store pixels."""
    global_px: PositiveInt = 1024
    """Side of the two global crops."""
    local_px: PositiveInt = 512
    """Side of a local crop."""
    local_views: NonNegativeInt = 8
    """Local crops per sample."""
    min_tissue: Share = 0.25
    """Share of a region that must be tissue; others are drawn again."""
    stain_jitter: NonNegativeFloat = 0.1
    """Strength of the jitter of haematoxylin, eosin and residual (Tellez et al. 2018); 0 is none."""
    blur_probability: Share = 0.2
    """Share of crops that are blurred a little."""
    global_tiles: float = Field(default=0.5, gt=0, le=1)
    """Share of a slide's tiles in each of the two global views, where a token is the embedding of a tile."""
    local_tiles: float = Field(default=0.15, gt=0, le=1)
    """Share of a slide's tiles in a local view, where a token is the embedding of a tile."""
    drop_tiles: float = Field(default=0.2, ge=0, lt=1)
    """Share of the tiles of such a view that are left out, at random."""


class ProbeConfig(StageConfig):
    """Labelled slides that say, while a run goes on, what its representations are worth. Nothing is trained on them."""

    table: Annotated[Path | None, required.TABLE] = None
    """CSV with `case_id`, `slide_id` and the label, as `finetune` reads it; slides without a store are passed over.
    Without a table nothing is probed."""
    label_column: str = "oncotree_code"
    """Column of the table with the label."""
    every: PositiveInt = 10
    """Epochs from one probe to the next; the untrained encoder and the last epoch are always probed."""
    folds: int = Field(default=5, ge=2)
    """Parts of the patients; each is predicted from the others."""
    neighbours: PositiveInt = 10
    """Nearest neighbours that vote in the k-NN probe."""
    tokens: PositiveInt = 16384
    """Tokens of a slide that are looked at, at most: whole tiles, spread evenly over the slide."""


class DinoConfig(StageConfig):
    """Self-distillation (Caron et al. 2021, arXiv:2104.14294), the paper's objective."""

    kind: Literal["dino"] = "dino"
    """dino compares crops with what a slowly moving teacher says of them, moco finds the other crop of a region among
    others, masked restores hidden tokens."""
    prototypes: PositiveInt = 65536
    """DINO: width of the head's output."""
    hidden: PositiveInt = 2048
    """DINO: width of the head's hidden layers."""
    bottleneck: PositiveInt = 256
    """DINO: width of the head's bottleneck."""
    batch_norm: bool = False
    """DINO: batch norm in the head's hidden layers takes out what all crops of a batch share, which would else drown
    what they differ in."""
    student_temperature: PositiveFloat = 0.1
    """DINO: temperature of the student's softmax."""
    teacher_temperature: PositiveFloat = 0.04
    """DINO: temperature of the teacher's softmax after its warmup; a lower one makes it decide."""
    teacher_temperature_start: PositiveFloat = 0.04
    """DINO: temperature of the teacher's softmax at the start."""
    teacher_temperature_epochs: NonNegativeInt = 0
    """DINO: epochs of the teacher temperature's warmup."""
    centring: Literal["mean", "sinkhorn"] = "mean"
    """DINO: how the teacher is kept from saying the same of all crops. `mean` takes its running mean out, as the paper
    does; `sinkhorn` shares every batch evenly among the prototypes, as DINOv2 does: for cohorts of few slides."""
    momentum: Share = 0.996
    """DINO and MoCo: momentum of the network that follows the trained one at the start; grows to 1 along a cosine."""
    freeze_last_layer_epochs: NonNegativeInt = 1
    """DINO: epochs in which the head's last layer stays as it is."""


class MocoConfig(StageConfig):
    """Momentum contrast (Chen et al. 2021, arXiv:2104.02057): tell the other crop of a region from crops of others."""

    kind: Literal["moco"] = "moco"
    """dino compares crops with what a slowly moving teacher says of them, moco finds the other crop of a region among
    others, masked restores hidden tokens."""
    mlp_dim: PositiveInt = 4096
    """MoCo: width of the hidden layers of the projection and prediction heads."""
    dim: PositiveInt = 256
    """MoCo: width of the vectors that are compared."""
    temperature: PositiveFloat = 0.2
    """MoCo: temperature of the softmax over the crops."""
    momentum: Share = 0.996
    """DINO and MoCo: momentum of the network that follows the trained one at the start; grows to 1 along a cosine."""
    queue: NonNegativeInt = 0
    """MoCo: crops of earlier batches to tell from, for batches too small to be hard; 0 takes the batch itself, as
    MoCo v3 does."""


class MaskedConfig(StageConfig):
    """Masked modelling (He et al. 2021, arXiv:2111.06377; Xie et al. 2021, arXiv:2111.09886): restore hidden tokens."""

    kind: Literal["masked"] = "masked"
    """dino compares crops with what a slowly moving teacher says of them, moco finds the other crop of a region among
    others, masked restores hidden tokens."""
    hidden_share: float = Field(default=0.6, gt=0, lt=1)
    """Masked: share of the tokens of a view that are hidden."""
    decoder_width: PositiveInt = 512
    """Masked: width of the hidden layer of the head that restores them."""


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
