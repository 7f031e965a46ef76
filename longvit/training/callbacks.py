"""Files of a training run: metrics, notes, timing and checkpoints.

`metrics.csv` and `notes.txt` depend only on the seed: a resumed run writes the same bytes as an uninterrupted run.
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
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.profilers import Profiler

from longvit.formats.csv_rows import write_rows
from preprocessing.errors import CheckpointError
from preprocessing.jobs.files import write_whole, written_whole

Row = Mapping[str, int | float]
_FAR = 10.0
"""Factor by which a loss is far above another loss."""
Reader = Callable[[Sequence[Row]], list[str]]
"""Function from the rows of metrics so far to sentences about them, for the user."""


def risen(rows: Sequence[Row]) -> list[str]:
    """Return a sentence if the final loss is far above an untrained model's loss, which is of the order of 1.

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
        f"epoch {since['epoch']}: the loss has risen to {since['loss']:.4g}, far above an untrained model's loss; "
        "lower optimiser.learning_rate, or bound the gradient with optimiser.clip_norm"
    ]


class EpochBar(RichProgressBar):
    """Progress bar that counts epochs from 1; Lightning's counts from 0."""

    def _get_train_description(self, current_epoch: int) -> str:
        text = f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"
        return text.ljust(len(self.validation_description))  # as Lightning's, or the bar flickers


class Meter(pl.Callback):
    """Callback with measures in addition to Lightning's log; placed before `MetricsFile`, which writes them."""

    measured: dict[str, float]
    """Measures for the next row; may be empty."""


class MetricsFile(pl.Callback):
    """Callback that writes `metrics.csv`, one row per epoch; a resumed run continues after its checkpoint's last epoch.

    A meter's measures before the first step are in a row of epoch -1.

    Args:
        path: The file.
        meters: Callbacks whose measures are written in addition to the module's log; TensorBoard gets them too.
    """

    def __init__(self, path: Path, meters: Sequence[Meter] = ()) -> None:
        self.path, self.meters, self.rows = path, meters, []

    def state_dict(self) -> dict:
        """Return the rows so far, to be stored in the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue with the rows of the checkpoint."""
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
        if trainer.is_global_zero:
            write_rows(self.path, self.rows)
        for logger in trainer.loggers:  # Lightning passes on the module's own log
            rate = {"learning_rate": row["learning_rate"]} if "learning_rate" in row else {}
            logger.log_metrics(rate | measured, step=trainer.global_step)


class NotesFile(pl.Callback):
    """Callback that writes `notes.txt`: sentences about problems in the run; each sentence is also printed, once.

    It is placed after `MetricsFile` and depends only on its rows, so that a resumed run has the same notes.

    Args:
        path: The file, written if there are sentences.
        metrics: Callback with the rows.
        read: Function from the rows so far to sentences.
    """

    def __init__(self, path: Path, metrics: MetricsFile, read: Reader) -> None:
        self.path, self.metrics, self.read = path, metrics, read
        self._printed: set[str] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mark the sentences of the checkpoint's rows as printed: the interrupted run has printed them."""
        self._printed = set(self.read(self.metrics.rows))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the rows, write the file and print new sentences."""
        sentences = self.read(self.metrics.rows)
        if sentences and trainer.is_global_zero:
            write_whole(self.path, "".join(f"{sentence}\n" for sentence in sentences))
        for sentence in sentences:
            if sentence not in self._printed:
                rich.get_console().print(f"[bold yellow]{self.path.parent.name}:[/] {sentence}", highlight=False)
        self._printed.update(sentences)


class LoaderWaitProfiler(Profiler):
    """Clock of the seconds that training waits for its next batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds, self._since = 0.0, 0.0

    def start(self, action_name: str) -> None:
        """Start the clock if Lightning requests the next batch."""
        if action_name.endswith("train_dataloader_next"):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Stop the clock when the next batch has arrived."""
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._since


class TimingFile(pl.Callback):
    """Callback that writes `timing.csv`, one row per epoch: `seconds`, and the share `data_wait` spent on waiting.

    A resumed run adds its rows. An epoch that was interrupted and repeated has only one row. This callback comes first,
    so that the measures of other callbacks at the end of an epoch are not counted.
    """

    def __init__(self, path: Path, waiting: LoaderWaitProfiler) -> None:
        self.path, self.waiting, self._since = path, waiting, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start both clocks."""
        self._since, self.waiting.seconds = time.perf_counter(), 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read both clocks and add the row, of the first rank."""
        if not trainer.is_global_zero:
            return
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
    """Writer of checkpoints that are first written in full under another name, synced to disk, and then renamed.

    So the last good checkpoint stays loadable. Lightning's own writer uses the system's temporary folder and moves the
    file. Between two file systems a move is a copy, and an interrupted copy leaves half a checkpoint in place of the
    last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write one file completely, or leave the old file unchanged."""
        with written_whole(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint, but its state contains file names without their folder, so that a run can be moved.

    In another folder, Lightning's own class forgets the best score, and keeps the best of the later epochs.
    """

    _PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state, with file names in place of paths."""
        state = super().state_dict()
        names = {key: Path(state[key]).name for key in self._PATHS}
        best = {Path(path).name: score for path, score in state["best_k_models"].items()}
        return state | names | {"best_k_models": best, "dirpath": None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state into the current folder.

        Raises:
            CheckpointError: The best epoch's checkpoint was not moved along with the run.
        """
        here = lambda name: str(Path(self.dirpath or "", name)) if name else ""
        paths = {key: here(state_dict[key]) for key in self._PATHS}
        best = {here(name): score for name, score in state_dict["best_k_models"].items()}
        for path in best:
            if not Path(path).is_file():
                fix = "copy all of the run's folder, or start the run in another folder"
                raise CheckpointError("the checkpoint of the best epoch is missing", where=path, fix=fix)
        super().load_state_dict(state_dict | paths | {"best_k_models": best, "dirpath": self.dirpath})
