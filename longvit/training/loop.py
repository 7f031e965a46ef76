"""Training loop of pretraining and finetuning: seeds, optimiser groups, schedule, settings of Lightning."""

import ctypes
import logging
import math
import signal
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
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from longvit.config import Device, OptimiserConfig, RunConfig
from longvit.runs.folder import TRAINING_METRICS
from longvit.training.callbacks import (
    Checkpoints,
    EpochBar,
    LoaderWaitProfiler,
    Meter,
    MetricsFile,
    NotesFile,
    Reader,
    SafeCheckpoints,
    TimingFile,
)
from longvit.training.events import EventsFile
from longvit.training.mesh import current_mesh
from longvit.training.sharding import load_whole
from preprocessing.errors import CheckpointError, TrainingError
from preprocessing.jobs.processes import end_with, lifeline

_NOTES = (
    ".*does not have many workers.*",
    ".*number of training batches.*",
    ".*exists and is not empty.*",  # a resumed run
    ".*no `val_dataloader`.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's use of torch
    ".*in eval mode at the start of training.*",  # frozen blocks, on purpose
    ".*sync_dist=True.*",  # what is logged is equal on all ranks
    "FSDP2-wrapped module .* returned a view tensor.*",  # which no caller changes in place
    "Ties in `time` detected.*",  # torchsurv, which handles ties as requested
    ".*`torch.nn.utils.weight_norm` is deprecated.*",  # lightly's DINO head
)
_MALLOC_KEEPS = {-1: 2**31 - 1, -3: 2**25}
"""glibc's M_TRIM_THRESHOLD, and the largest possible M_MMAP_THRESHOLD, bytes."""
_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed"}


class TrainingModule(pl.LightningModule):
    """Base of the training modules: AdamW with warmup and cosine, and random numbers that depend only on the step."""

    ranks_alike = False
    """True if all ranks of a mesh compute each block equally often in a step."""

    def __init__(self, optimiser: OptimiserConfig, seed: int) -> None:
        super().__init__()
        self.settings, self.seed = optimiser, seed

    def configure_optimizers(self) -> dict:  # type: ignore[override]
        """Return AdamW and its schedule, which advances with every step."""
        groups = optimiser_groups(self, self.settings, self.rate_of)
        optimiser = torch.optim.AdamW(groups)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warmup_cosine(optimiser, self.settings, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def require_finite(self, name: str, *values: Tensor) -> None:
        """Refuse to continue with values that are not finite.

        Raises:
            TrainingError: A value is NaN or infinite, so training has diverged.
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
        """Refuse weights that are not finite at the end of an epoch, before they are written to a checkpoint."""
        if self.trainer.is_last_batch:
            self.require_finite("a weight", *(x for x in self.state_dict().values() if x.is_floating_point()))

    def rate_of(self, name: str) -> float:
        """Return a parameter's learning rate, as a share of the configured learning rate."""
        return 1.0

    @property
    def batch_number(self) -> int:
        """Number of the batch since the start of the training, from 0; also in a resumed run."""
        return self.trainer.fit_loop.total_batch_idx if self._trainer else 0

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Seed dropout by the batch, so that a resumed run draws the same numbers as an uninterrupted run."""
        torch.manual_seed(self.seed * 1_000_003 + self.batch_number)


def optimiser_groups(
    module: nn.Module, settings: OptimiserConfig, rate_of: Callable[[str], float] = lambda name: 1.0
) -> list[dict]:
    """Return trainable parameters grouped by learning rate, highest first, and by decay: only matrices decay.

    Args:
        module: Module to train.
        settings: Learning rate and weight decay.
        rate_of: Function from a parameter's name to its share of the learning rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((settings.learning_rate * rate_of(name), decay), []).append(parameter)
    return [{"params": groups[key], "lr": key[0], "weight_decay": key[1]} for key in sorted(groups, reverse=True)]


def warmup_cosine(optimiser: torch.optim.Optimizer, settings: OptimiserConfig, steps: int) -> LambdaLR:
    """Return the schedule: linear warmup from 0, then half a cosine from the learning rate to its minimum."""
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
    """Train in `folder`, from its last checkpoint if it has one; the module then has the weights, or shares, to use.

    Args:
        module: Module to train.
        loader: Batches of the training part.
        config: Seed, device, precision.
        folder: Folder for checkpoints, metrics, notes, timing and `tensorboard/`.
        val_loader: Batches of the val part.
        monitor: Metric of the val part that selects the epoch; None selects the last epoch.
        patience: Epochs without a smaller `monitor` after which training stops; None trains all epochs.
        brief: Whether the fit takes seconds: it then writes only metrics, without progress bar and checkpoint.
        meters: Callbacks with measures in addition to the module's own log.
        read: Function from the rows of metrics to sentences for `notes.txt`.
    """
    begin(config)
    keep_freed_memory()
    module.train()
    last = folder / "checkpoints" / "last.ckpt"
    best = Checkpoints(last.parent, filename="best", monitor=monitor, enable_version_counter=False)
    every = Checkpoints(last.parent, filename=last.stem, enable_version_counter=False)
    waiting, metrics = LoaderWaitProfiler(), MetricsFile(folder / TRAINING_METRICS, meters)
    callbacks: list[pl.Callback] = [*([] if brief else [TimingFile(folder / "timing.csv", waiting)]), *meters, metrics]
    callbacks += [*([NotesFile(folder / "notes.txt", metrics, read)] if read else []), *([best] if monitor else [])]
    callbacks += [ResumableEarlyStopping(monitor, patience=patience)] if monitor and patience else []
    callbacks += [] if brief else [EpochBar(), every]
    trainer = pl.Trainer(
        accelerator=config.device,
        **current_mesh().trainer_settings(fsdp=config.execution.fsdp),
        precision=_PRECISION[config.precision],
        max_epochs=module.settings.epochs,
        gradient_clip_val=module.settings.clip_norm,
        accumulate_grad_batches=module.settings.accumulate,
        callbacks=callbacks,
        enable_checkpointing=best in callbacks or every in callbacks,
        enable_progress_bar=not brief,
        enable_model_summary=False,
        logger=False if brief or not current_mesh().first else EventsFile(folder / "tensorboard"),
        profiler=waiting,
        plugins=[SafeCheckpoints()],
        num_sanity_val_steps=0,
    )
    trainer._signal_connector.register_signal_handlers = lambda: None  # its handler of SIGTERM waits for all ranks
    if last.exists():  # workers start to read before Lightning sets the epoch
        loader.sampler.set_epoch(_load(last)["epoch"] + 1)  # type: ignore[attr-defined]
    trainer.fit(module, loader, val_loader, ckpt_path=last if last.exists() else None, weights_only=True)
    if monitor:
        load_whole(module, _load(Path(best.best_model_path))["state_dict"])


def _load(checkpoint: Path) -> dict[str, Any]:
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in a dozen ways
        fix = f"delete the folder {checkpoint.parent}: this training then starts at its first epoch"
        raise CheckpointError("the training's checkpoint is damaged", where=checkpoint, fix=fix) from error


def loader_processes(workers: int) -> dict[str, Any]:
    """Return the arguments of a DataLoader with this many reading processes; they end with the current process."""
    if not workers:
        return {"num_workers": 0}
    return {
        "num_workers": workers,
        "persistent_workers": True,
        "worker_init_fn": partial(_start_loader, parent=lifeline()),
    }


def _start_loader(worker: int, parent: Connection) -> None:
    end_with(parent)
    signal.set_wakeup_fd(-1)  # of the rank that forked this process: a signal to this process is none to the rank
    cv2.setNumThreads(0)  # the processes are the parallelism; 1 would wait for threads that a fork does not have


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that remembers its state in a resumed run; Lightning's own would train one epoch more."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if the resumed run had already stopped."""
        trainer.should_stop = self.wait_count >= self.patience


def pick_device(device: Device) -> torch.device:
    """Return the device of a config; `auto` is the accelerator if the machine has one."""
    if device != "auto":
        return torch.device(device)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def begin(config: RunConfig) -> None:
    """Seed all random numbers, before a model is made, and hide warnings meant for developers of libraries."""
    pl.seed_everything(config.seed, verbose=False)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for message in _NOTES:
        warnings.filterwarnings("ignore", message)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step; by default it returns large tensors to the system at once.

    Getting the memory again costs a twentieth to a fifth of a step on a CPU. Without glibc the function has no effect.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _MALLOC_KEEPS.items():
            mallopt(parameter, value)
