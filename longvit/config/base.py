"""Settings that several verbs share."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from longvit.config.encoder import ExecutionConfig
from preprocessing.config import StageConfig

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
    execution: ExecutionConfig = ExecutionConfig()
    """How the encoder is computed; a run may go on with other values."""
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
