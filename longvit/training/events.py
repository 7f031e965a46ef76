"""TensorBoard metrics, in a file whose name and content contain no host, user or process."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventsFile(Logger):
    """Logger of Lightning's metrics as `events.out.tfevents.<seconds>`; a resumed run adds a file.

    TensorBoard joins the files of a folder.

    Args:
        folder: Folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._records: RecordWriter | None = None

    @property
    def name(self) -> str:
        """Return the name of the logger."""
        return "tensorboard"

    @property
    def version(self) -> str:
        """Return nothing: Lightning's progress bar would show a version."""
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the value of each metric at a step, and flush it to disk."""
        if self._records is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter((self.folder / f"events.out.tfevents.{int(time.time()):010d}").open("ab"))
            self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        event = Event(wall_time=time.time(), step=step or 0, summary=Summary(value=values))
        self._records.write(event.SerializeToString())
        self._records.flush()

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Lightning's
        """Write nothing, because `config.yaml` contains the settings."""

    def finalize(self, status: str) -> None:
        """Close the file."""
        if self._records is not None:
            self._records.close()
            self._records = None
