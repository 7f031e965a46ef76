"""Result of a verb that processes slides and writes one table."""

from dataclasses import dataclass
from pathlib import Path

from preprocessing.errors import PipelineError


@dataclass(frozen=True)
class Outcome:
    """Table of a run, and the errors of unreadable inputs."""

    table: Path
    """Path of the table, one row per slide or sequence; no file exists if nothing could be read."""
    failed: dict[str, PipelineError]
    """Error of each slide, sequence or fold's model that could not be read."""
