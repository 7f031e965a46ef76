"""Settings of self-supervision, free of torch: the views of a slide, and the objective on them."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from preprocessing.config import Share, StageConfig


class ViewsConfig(StageConfig):
    """Views of a slide for self-supervision: crops of one region of a store, in the store's frame, never rescaled."""

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


class DinoConfig(StageConfig):
    """Self-distillation (Caron et al. 2021, arXiv:2104.14294), the paper's objective."""

    kind: Literal["dino"] = "dino"
    """DINO."""
    prototypes: PositiveInt = 65536
    """Width of the head's output."""
    hidden: PositiveInt = 2048
    """Width of the head's hidden layers."""
    bottleneck: PositiveInt = 256
    """Width of the head's bottleneck."""
    student_temperature: PositiveFloat = 0.1
    """Temperature of the student's softmax."""
    teacher_temperature: PositiveFloat = 0.04
    """Temperature of the teacher's softmax after its warmup."""
    teacher_temperature_start: PositiveFloat = 0.04
    """Temperature of the teacher's softmax at the start."""
    teacher_temperature_epochs: NonNegativeInt = 0
    """Epochs of the teacher temperature's warmup."""
    momentum: Share = 0.996
    """Momentum of the teacher at the start; it grows to 1 along a cosine."""
    freeze_last_layer_epochs: NonNegativeInt = 1
    """Epochs in which the head's last layer stays as it is."""
