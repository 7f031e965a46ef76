"""Schema of run.json: starts of a run, each with its command and versions, so that it can be repeated."""

import json
from pathlib import Path
from typing import Any, TypedDict

from preprocessing.errors import ConfigError
from preprocessing.jobs.files import write_whole

RUN = "run.json"


class Start(TypedDict):
    """Start of a verb."""

    verb: str
    """Verb that ran."""
    command: list[str]
    """Command line, without folders of the machine."""
    started: str
    """Time of the start, ISO 8601, UTC."""
    longvit: str
    """Version of this program."""
    commit: str | None
    """Commit of the source tree; None for an installed package."""
    python: str
    """Version of Python."""
    libraries: dict[str, str]
    """Version of each library that affects numbers."""
    machine: dict[str, Any]
    """System, number of cores, and mesh: ranks with different slides (`data`) and ranks per sequence (`sequence`)."""


def add_start(folder: Path, start: Start) -> None:
    """Add a start to run.json, which is rewritten as a whole.

    Raises:
        ConfigError: The file is damaged.
    """
    write_whole(folder / RUN, json.dumps([*read_starts(folder), start], indent=2) + "\n")


def read_starts(folder: Path) -> list[Start]:
    """Return the starts of a run, whose last entry has at least its verb; an empty list if run.json does not exist.

    Raises:
        ConfigError: The file is damaged.
    """
    try:
        starts = json.loads((folder / RUN).read_text(encoding="utf-8"))
        _ = starts[-1]["verb"]
    except FileNotFoundError:
        return []
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError("the file is damaged", where=folder / RUN, fix="choose another --out") from error
    return starts
