"""Run folders: the resolved config and the provenance of a run, and whether a run may go on in a folder."""

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from longvit import __version__
from longvit.config import PredictConfig, RunConfig
from longvit.settings import load_yaml, to_yaml
from preprocessing.errors import ConfigError
from preprocessing.files import write_whole

_LIBRARIES = ("torch", "pytorch-lightning", "lightly", "torchsurv", "timm", "zarr", "numpy", "scikit-survival")
_MACHINE_ONLY = {"out", "device", "loader_workers", "parallel_folds"}  # a run may go on elsewhere, on another device


def open_run(config: RunConfig | PredictConfig, verb: str, result: Path) -> Path:
    """Make the run's folder, or take up the one that an earlier start with the same config left.

    Args:
        config: Settings of the run.
        verb: The verb that runs.
        result: File that the run ends with; once it is there, another start changes nothing.

    Returns:
        The folder, holding `config.yaml` and `run.json`, a list with the provenance of every start that did work.

    Raises:
        ConfigError: The folder holds a run with other settings.
    """
    settings, starts = config.out / "config.yaml", config.out / "run.json"
    if settings.exists():
        _refuse_other_settings(config, load_yaml(settings, type(config)), settings)
    if not result.exists():
        config.out.mkdir(parents=True, exist_ok=True)
        earlier = json.loads(starts.read_text(encoding="utf-8")) if starts.exists() else []
        write_whole(settings, to_yaml(config))
        write_whole(starts, json.dumps([*earlier, provenance(verb)], indent=2) + "\n")
    return config.out


def provenance(verb: str) -> dict:
    """What is needed to rerun a table: the command, versions, commit, machine and time."""
    return {
        "verb": verb,
        "command": sys.argv,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "longvit": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }


def _refuse_other_settings(config: RunConfig | PredictConfig, earlier: RunConfig | PredictConfig, where: Path) -> None:
    now, then = config.model_dump(mode="json"), earlier.model_dump(mode="json")
    changed = [key for key in now if key not in _MACHINE_ONLY and now[key] != then[key]]
    if changed:
        raise ConfigError(
            f"this folder holds a run with other settings ({', '.join(changed)})",
            where=where,
            fix="choose another --out, or delete the folder to start again",
        )


def _commit() -> str | None:
    """The commit of the source tree this runs from; none for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
