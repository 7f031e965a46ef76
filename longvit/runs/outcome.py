"""Result of a verb that goes over slides and leaves one table."""

from dataclasses import dataclass
from pathlib import Path

from preprocessing.errors import PipelineError


@dataclass(frozen=True)
class Outcome:
    """The table of a run, and what could not be read."""

    table: Path
    """The table, a row for each slide or sequence; missing if nothing could be read."""
    failed: dict[str, PipelineError]
    """Slides, sequences or folds' models that could not be read, and the error of each."""
