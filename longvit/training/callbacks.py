"""Files of a training run: metrics, notes, timing and checkpoints.

`metrics.csv` and `notes.txt` depend on the seed alone: a resumed run writes the bytes of an undisturbed one.
`timing.csv` depends on the machine.
"""

import csv
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import rich
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.profilers import Profiler

from longvit.formats.csv_rows import write_rows
from preprocessing.errors import CheckpointError
from preprocessing.jobs.files import write_whole, written_whole

Row = Mapping[str, int | float]
_FAR = 10.0
"""Factor by which a loss is far above another."""
Reader = Callable[[Sequence[Row]], list[str]]
"""Rows of metrics so far -> sentences for the user about them."""


def risen(rows: Sequence[Row]) -> list[str]:
    """Return a sentence if the loss ends far above that of an untrained model, which is of the order of 1.

    Args:
        rows: Rows of `metrics.csv`, in order.
    """
    trained = [row for row in rows if "loss" in row]
    first = trained[0] if trained else {}
    limit = min(_FAR * max(1.0, first.get("loss", 1.0)), _FAR**2)
    if not trained or trained[-1]["loss"] <= limit:
        return []
    since = next(row for row in trained if row["loss"] > limit)
    return [
        f"epoch {since['epoch']}: the loss has risen to {since['loss']:.4g}, far above that of an untrained model; "
        "lower optimiser.learning_rate, or bound the gradient with optimiser.clip_norm"
    ]


class Meter(pl.Callback):
    """Measures in addition to Lightning's log; comes before `MetricsFile`, which writes them."""

    measured: dict[str, float]
    """Measures for the next row; empty if there are none."""


class MetricsFile(pl.Callback):
    """`metrics.csv`, a row per epoch; a resumed run goes on after the last epoch that its checkpoint holds.

    Measures of a meter before the first step are a row of epoch -1.

    Args:
        path: The file.
        meters: Measures to write in addition to the module's log; TensorBoard gets them too.
    """

    def __init__(self, path: Path, meters: Sequence[Meter] = ()) -> None:
        self.path, self.meters, self.rows = path, meters, []

    def state_dict(self) -> dict:
        """Return the rows so far, which the checkpoint keeps."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up the rows of the checkpoint."""
        self.rows = state_dict["rows"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the measures of the untrained model."""
        measured = self._measured()
        if trainer.global_step == 0 and measured:
            self._add(trainer, {"epoch": -1, "step": 0}, measured)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row and write the file."""
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "learning_rate": rate}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._add(trainer, row, self._measured())

    def _measured(self) -> dict[str, float]:
        return {name: value for meter in self.meters for name, value in meter.measured.items()}

    def _add(self, trainer: pl.Trainer, row: Row, measured: dict[str, float]) -> None:
        self.rows.append({**row, **measured})
        write_rows(self.path, self.rows)
        for logger in trainer.loggers:  # what the module logs, Lightning brings there
            rate = {"learning_rate": row["learning_rate"]} if "learning_rate" in row else {}
            logger.log_metrics(rate | measured, step=trainer.global_step)


class NotesFile(pl.Callback):
    """`notes.txt`: sentences about trouble in the run; each is also printed, once.

    Comes after `MetricsFile`. Read from its rows alone, so that a resumed run has the same notes.

    Args:
        path: The file, written if there are sentences.
        metrics: Holds the rows.
        read: Rows so far -> sentences.
    """

    def __init__(self, path: Path, metrics: MetricsFile, read: Reader) -> None:
        self.path, self.metrics, self.read = path, metrics, read
        self._printed: set[str] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the sentences of the checkpoint's rows as printed before the run was interrupted."""
        self._printed = set(self.read(self.metrics.rows))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the rows, write the file, print new sentences."""
        sentences = self.read(self.metrics.rows)
        if sentences:
            write_whole(self.path, "".join(f"{sentence}\n" for sentence in sentences))
        for sentence in sentences:
            if sentence not in self._printed:
                rich.get_console().print(f"[bold yellow]{self.path.parent.name}:[/] {sentence}", highlight=False)
        self._printed.update(sentences)


class LoaderWaitProfiler(Profiler):
    """Seconds that training stood still for its next batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds, self._since = 0.0, 0.0

    def start(self, action_name: str) -> None:
        """Start the clock if Lightning asks for the next batch."""
        if action_name.endswith("train_dataloader_next"):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Stop the clock."""
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._since


class TimingFile(pl.Callback):
    """`timing.csv`, a row per epoch: `seconds`, and `data_wait`, the share of them spent waiting for the next batch.

    A resumed run adds its rows; an epoch that was interrupted and done again has none of its own. The measures of other
    callbacks at the end of an epoch are not counted: this one comes first.
    """

    def __init__(self, path: Path, waiting: LoaderWaitProfiler) -> None:
        self.path, self.waiting, self._since = path, waiting, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clocks."""
        self._since, self.waiting.seconds = time.perf_counter(), 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the clocks and add the row."""
        seconds = time.perf_counter() - self._since
        row = {"epoch": trainer.current_epoch, "seconds": seconds, "data_wait": self.waiting.seconds / seconds}
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow({name: f"{value:.4g}" if name != "epoch" else value for name, value in row.items()})
        for logger in trainer.loggers:
            logger.log_metrics({"data_wait": row["data_wait"]}, step=trainer.global_step)


class SafeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint under another name, down to the disk, then renames it: the last good one stays loadable.

    Lightning's own way writes to the system's temporary folder and moves the file. Between two file systems that is a
    copy, and a copy that is cut short leaves half a checkpoint in the place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write one file, or leave the old one as it is."""
        with written_whole(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint with a state that names files without their folder, so that a run can be moved.

    Lightning's own forgets the best score in another folder, and takes the best of the later epochs.
    """

    _PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state, with names of files in place of paths."""
        state = super().state_dict()
        names = {key: Path(state[key]).name for key in self._PATHS}
        best = {Path(path).name: score for path, score in state["best_k_models"].items()}
        return state | names | {"best_k_models": best, "dirpath": None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state in this folder.

        Raises:
            CheckpointError: The best epoch's checkpoint was not moved along.
        """
        here = lambda name: str(Path(self.dirpath or "", name)) if name else ""
        paths = {key: here(state_dict[key]) for key in self._PATHS}
        best = {here(name): score for name, score in state_dict["best_k_models"].items()}
        for path in best:
            if not Path(path).is_file():
                fix = "copy all of the run's folder, or start the run in another one"
                raise CheckpointError("the checkpoint of the best epoch is missing", where=path, fix=fix)
        super().load_state_dict(state_dict | paths | {"best_k_models": best, "dirpath": self.dirpath})
