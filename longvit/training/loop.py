"""The training loop of pretraining and finetuning: seeds, optimiser groups, schedule, settings of Lightning."""

import ctypes
import logging
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import cv2
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, RichProgressBar
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from longvit.config import Device, OptimiserConfig, RunConfig
from longvit.runs.folder import TRAINING_METRICS
from longvit.training.callbacks import (
    Checkpoints,
    LoaderWaitProfiler,
    Meter,
    MetricsFile,
    NotesFile,
    Reader,
    SafeCheckpoints,
    TimingFile,
)
from longvit.training.events import EventsFile
from preprocessing.errors import CheckpointError, TrainingError
from preprocessing.jobs.processes import end_with, lifeline

_NOTES = (
    ".*does not have many workers.*",
    ".*number of training batches.*",
    ".*exists and is not empty.*",  # a run that is taken up again
    ".*no `val_dataloader`.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's use of torch
    ".*in eval mode at the start of training.*",  # frozen blocks, on purpose
    "Ties in `time` detected.*",  # torchsurv, which handles them as we ask
    ".*`torch.nn.utils.weight_norm` is deprecated.*",  # lightly's DINO head
)
_MALLOC_KEEPS = {-1: 2**31 - 1, -3: 2**25}
"""glibc's M_TRIM_THRESHOLD, and M_MMAP_THRESHOLD, which may be no larger, bytes."""
_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed"}


class TrainingModule(pl.LightningModule):
    """Base of the training modules: AdamW with warmup and cosine, and random numbers that depend on the step alone."""

    def __init__(self, optimiser: OptimiserConfig, seed: int) -> None:
        super().__init__()
        self.settings, self.seed = optimiser, seed

    def configure_optimizers(self) -> dict:  # type: ignore[override]
        """Return AdamW and its schedule, which moves with every step."""
        groups = optimiser_groups(self, self.settings, self.rate_of)
        optimiser = torch.optim.AdamW(groups)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warmup_cosine(optimiser, self.settings, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def require_finite(self, name: str, *values: Tensor) -> None:
        """Refuse to go on with numbers that are not finite.

        Raises:
            TrainingError: One is NaN or infinite: training has diverged.
        """
        for value in values:
            if not value.isfinite().all():
                raise TrainingError(
                    f"{name} became {'nan' if value.isnan().any() else 'inf'} in epoch {self.current_epoch}",
                    where=f"optimiser.learning_rate {self.settings.learning_rate:g}",
                    fix="lower optimiser.learning_rate, or bound the gradient with optimiser.clip_norm; with other "
                    "settings a run needs another --out, or --overwrite",
                )

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Refuse weights that are not finite at the end of an epoch, before a checkpoint of them is written."""
        if self.trainer.is_last_batch:
            self.require_finite("a weight", *(x for x in self.state_dict().values() if x.is_floating_point()))

    def rate_of(self, name: str) -> float:
        """Return the learning rate of the parameter of this name, as a share of the configured one."""
        return 1.0

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Seed dropout by the step, so that a resumed run draws what the undisturbed one would have drawn."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)


def optimiser_groups(
    module: nn.Module, settings: OptimiserConfig, rate_of: Callable[[str], float] = lambda name: 1.0
) -> list[dict]:
    """Return trainable parameters by learning rate, highest first, each with and without decay: only matrices decay.

    Args:
        module: Module to train.
        settings: Learning rate and weight decay.
        rate_of: A parameter's share of the learning rate, by its name.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((settings.learning_rate * rate_of(name), decay), []).append(parameter)
    return [{"params": groups[key], "lr": key[0], "weight_decay": key[1]} for key in sorted(groups, reverse=True)]


def warmup_cosine(optimiser: torch.optim.Optimizer, settings: OptimiserConfig, steps: int) -> LambdaLR:
    """Return the schedule: linear warmup from 0, then half a cosine from the learning rate to the smallest one."""
    warmup = settings.warmup_epochs / settings.epochs * steps
    floor = settings.min_learning_rate / settings.learning_rate

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1.0, steps - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimiser, factor)


def fit(
    module: TrainingModule,
    loader: DataLoader,
    config: RunConfig,
    folder: Path,
    *,
    val_loader: DataLoader | None = None,
    monitor: str | None = None,
    patience: int | None = None,
    brief: bool = False,
    meters: Sequence[Meter] = (),
    read: Reader | None = None,
) -> None:
    """Train in `folder`, from its last checkpoint if there is one; the module then holds the weights to use.

    Args:
        module: Module to train.
        loader: Its batches.
        config: Seed, device, precision.
        folder: Receives checkpoints, metrics, notes and timing, and `tensorboard/`.
        val_loader: Batches of the val part.
        monitor: A metric of the val part; none takes the last epoch.
        patience: Epochs without a smaller `monitor` after which training stops; none trains all of them.
        brief: A fit of seconds: metrics alone, no progress bar, and no checkpoint to go on from.
        meters: Measures in addition to the module's own log.
        read: Rows of metrics -> sentences for `notes.txt`.
    """
    begin(config)
    keep_freed_memory()
    module.train()
    last = folder / "checkpoints" / "last.ckpt"
    best = Checkpoints(last.parent, filename="best", monitor=monitor, enable_version_counter=False)
    every = Checkpoints(last.parent, filename=last.stem, enable_version_counter=False)
    waiting, metrics = LoaderWaitProfiler(), MetricsFile(folder / TRAINING_METRICS, meters)
    callbacks = [*([] if brief else [TimingFile(folder / "timing.csv", waiting)]), *meters, metrics]
    callbacks += [NotesFile(folder / "notes.txt", metrics, read)] if read else []
    callbacks += [best] if monitor else []
    callbacks += [ResumableEarlyStopping(monitor, patience=patience)] if monitor and patience else []
    callbacks += [] if brief else [RichProgressBar(), every]
    trainer = pl.Trainer(
        accelerator=config.device,
        devices=1,
        precision=_PRECISION[config.precision],
        max_epochs=module.settings.epochs,
        gradient_clip_val=module.settings.clip_norm,
        callbacks=callbacks,
        enable_checkpointing=best in callbacks or every in callbacks,
        enable_progress_bar=not brief,
        enable_model_summary=False,
        logger=False if brief else EventsFile(folder / "tensorboard"),
        profiler=waiting,
        plugins=[SafeCheckpoints()],
        num_sanity_val_steps=0,
    )
    if last.exists():  # workers begin to read before Lightning sets the epoch
        loader.sampler.set_epoch(_load(last)["epoch"] + 1)  # type: ignore[attr-defined]
    trainer.fit(module, loader, val_loader, ckpt_path=last if last.exists() else None, weights_only=True)
    if monitor:
        module.load_state_dict(_load(Path(best.best_model_path))["state_dict"])


def _load(checkpoint: Path) -> dict[str, Any]:
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in a dozen ways
        fix = f"delete the folder {checkpoint.parent}: this training then starts at its first epoch"
        raise CheckpointError("the training's checkpoint is damaged", where=checkpoint, fix=fix) from error


def loader_processes(workers: int) -> dict[str, Any]:
    """Return the arguments of a DataLoader that reads in so many processes; none of them outlives this one."""
    if not workers:
        return {"num_workers": 0}
    return {
        "num_workers": workers,
        "persistent_workers": True,
        "worker_init_fn": partial(_start_loader, parent=lifeline()),
    }


def _start_loader(worker: int, parent: Connection) -> None:
    end_with(parent)
    cv2.setNumThreads(0)  # the processes are the parallelism; 1 would wait for threads that a fork does not have


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that a resumed run remembers: Lightning's own would train one epoch more."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if the run had stopped."""
        trainer.should_stop = self.wait_count >= self.patience


def pick_device(device: Device) -> torch.device:
    """Return the device of a config; `auto` is the accelerator if there is one."""
    if device != "auto":
        return torch.device(device)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def begin(config: RunConfig) -> None:
    """Seed all random numbers, before a model is made, and hide warnings that are for the developers of libraries."""
    pl.seed_everything(config.seed, verbose=False)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for message in _NOTES:
        warnings.filterwarnings("ignore", message)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, where it would give large tensors back to the system at once.

    Getting them again costs a twentieth to a fifth of a step on a CPU. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _MALLOC_KEEPS.items():
            mallopt(parameter, value)
