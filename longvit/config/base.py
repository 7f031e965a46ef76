"""Settings that several verbs share."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from longvit.config.encoder import ExecutionConfig
from preprocessing.config import StageConfig

Device = Literal["auto", "cpu", "cuda", "mps"]


class RunConfig(StageConfig):
    """Settings of every training run. A run started again in the same folder continues where it stopped."""

    out: Path
    """Folder of the run: config, provenance, metrics, checkpoints, results."""
    seed: NonNegativeInt = 0
    """Seed of all random draws."""
    device: Device = "auto"
    """Device to compute on; `auto` takes the accelerator if there is one."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic: float32, or bfloat16 under autocast."""
    loader_workers: NonNegativeInt = 2
    """Processes that read stores; 0 reads in the training process."""
    execution: ExecutionConfig = ExecutionConfig()
    """Execution of the encoder; a run can be continued with other values."""
    overwrite: bool = False
    """Start again: first remove the result of an earlier run in `out`, and keep nothing of it."""


class OptimiserConfig(StageConfig):
    """AdamW with linear warmup and cosine decay."""

    epochs: PositiveInt = 10
    """Passes over the data."""
    learning_rate: PositiveFloat = 5e-5
    """Learning rate after warmup."""
    min_learning_rate: NonNegativeFloat = 1e-6
    """Learning rate at the end."""
    warmup_epochs: NonNegativeFloat = 1.0
    """Epochs of linear warmup."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay of matrices; biases, norms and vectors are not decayed."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the gradient; null turns clipping off."""
    accumulate: PositiveInt = 1
    """Batches, or windows of patients, whose mean gradient makes a step."""
