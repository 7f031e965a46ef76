"""Run folders: settings, inputs and provenance of a run, and the decision whether a run may continue in a folder.

Two processes in one folder: no verb waits for another process, and a lock that is held is an error at once, a
`BusyError`. The lock of a dead process is free again. All locks are from `preprocessing.jobs.atomic_folder`.

    split, pretrain, finetune, encode,   refuse: one run at a time in a folder (`.lock`)
    predict, evaluate, demo
    view --static, add_embeddings        refuse: one process at a time builds a folder
    explain                              refuses slide by slide: a locked slide fails, other slides are explained
    tile                                 shares: a slide that another run tiles is left to that run, checked again at
                                         the end, and reported as skipped if it is unfinished; this is not a failure
    audit                                neither: writes one whole file, and the last file stays
    view                                 neither: writes nothing

Tests: `tests/pipeline/test_ends.py` (`test_a_second_run_in_the_same_folder_is_refused_and_the_first_is_not_disturbed`)
runs each verb next to a second process. `tests/preprocessing/test_surviving.py`
(`test_two_runs_over_one_folder_share_its_slides`) does so for `tile`.
`tests/preprocessing/jobs/test_atomic_folder.py` (`test_two_processes_do_not_build_the_same`) tests the folders that
are built.
"""

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from longvit import __version__
from longvit.config import (
    EncodeConfig,
    FinetuneConfig,
    PredictConfig,
    PretrainConfig,
    SplitConfig,
    Task,
    without_execution,
)
from longvit.config.yaml_files import to_yaml
from longvit.formats.audit_json import AUDIT
from longvit.formats.membership_csv import MEMBERSHIP
from longvit.formats.metrics_json import METRICS
from longvit.formats.predictions_csv import PREDICTIONS
from longvit.formats.run_json import RUN, Start, add_start, read_starts
from longvit.runs.input_hashes import RecordedInputs, differences
from longvit.runs.privacy import shareable_command
from preprocessing.config import StageConfig
from preprocessing.errors import ConfigError
from preprocessing.jobs.atomic_folder import locked
from preprocessing.jobs.files import remove_temporaries, write_whole

AnyRun = PretrainConfig | FinetuneConfig | EncodeConfig | PredictConfig | SplitConfig
INPUTS = "inputs.json"
REPORT, REPRESENTATIONS, TRAINING_METRICS = "report.html", "representations.csv", "metrics.csv"
"""Files of `evaluate`, `encode` and every training."""
_LIBRARIES = ("torch", "pytorch-lightning", "lightly", "torchsurv", "timm", "zarr", "numpy", "scikit-survival")
_MACHINE_ONLY = {"overwrite", "device", "execution", "loader_workers", "parallel_folds"}
"""Settings that may change between two starts of a run, because another machine may continue the run."""
_TRAINING = ("checkpoints", "tensorboard", TRAINING_METRICS, "notes.txt", "timing.csv")
_REPORT = (METRICS, REPORT, "report.md", "figures")
WRITTEN = {
    "pretrain": ("encoder.safetensors", *_TRAINING),
    "finetune": (
        *(PREDICTIONS, MEMBERSHIP, AUDIT, "notes.txt", "fold_*", "baselines"),
        *("representations", "tokens", *_REPORT),
    ),
    "split": ("splits_*.csv",),
    "encode": (REPRESENTATIONS, "timing.csv", "slides"),
    "predict": (PREDICTIONS, *_REPORT),
}
"""Files and folders that each verb writes to its run folder, which --overwrite removes; other files stay."""


@dataclass(frozen=True)
class Run:
    """A run folder that only this process writes.

    Attributes:
        config: Settings of the run.
        verb: Verb of the run.
        inputs: Settings, files and stores as they are now.
        result: Last file that the run writes.
        finished: Whether the result exists, with the same settings and inputs.
        changed: Slides whose store has changed since it was read; empty for verbs that cannot add slides.
        unrecorded: Slides that no earlier start has recorded.
    """

    config: AnyRun
    verb: str
    inputs: RecordedInputs
    result: Path
    finished: bool
    changed: frozenset[str]
    unrecorded: frozenset[str]

    def begin(self, slides: Collection[str] | None = None) -> None:
        """Record the inputs, then write `config.yaml`, then add this start to `run.json`.

        A folder is a run's folder only after its inputs are recorded, so that a killed start can be repeated.

        Args:
            slides: See `record`.
        """
        self.record(slides)
        write_whole(self.config.out / "config.yaml", to_yaml(self.config))
        execution = getattr(self.config, "execution", None)
        add_start(self.config.out, provenance(self.verb, execution.sequence_parallel if execution else 1))

    def record(self, slides: Collection[str] | None = None) -> None:
        """Write `inputs.json`.

        Args:
            slides: Slides that are done, whose stores are recorded; default all.
        """
        stores = {name: one for name, one in self.inputs.stores.items() if slides is None or name in slides}
        self.inputs.model_copy(update={"stores": stores}).save(self.config.out / INPUTS)

    def say_finished(self) -> None:
        """Print that there is nothing to do."""
        print(f"{self.result}: finished, with the same settings and inputs; nothing to do", file=sys.stderr)


@contextmanager
def open_run(
    config: AnyRun, verb: str, inputs: RecordedInputs, result: Path, *, adds_slides: bool = False
) -> Iterator[Run]:
    """Yield the run in a locked folder: a new folder, or an earlier start's with the same settings and inputs.

    Args:
        config: Settings of the run.
        verb: Verb of the run.
        inputs: Identity of all files and stores that the run reads.
        result: Last file that the run writes.
        adds_slides: Whether the verb adds new slides, and repeats slides whose store changed. Such a verb calls
            `begin` and `say_finished` itself.

    Raises:
        ConfigError: The folder contains a run of another verb, with other settings or with other inputs.
        BusyError: Another process is working in the folder.
    """
    inputs = inputs.model_copy(update={"settings": settings_of(config)})
    config.out.mkdir(parents=True, exist_ok=True)
    with locked(config.out / ".lock", config.out):
        remove_temporaries(config.out)
        earlier = _read_earlier(config, verb)
        changed = refuse_others(config.out, earlier, inputs, adds_slides=adds_slides) if earlier else frozenset()
        unrecorded = frozenset(inputs.stores) - frozenset(earlier.stores if earlier else ())
        run = Run(config, verb, inputs, result, earlier is not None and result.exists(), changed, unrecorded)
        if not adds_slides:
            if run.finished:
                run.say_finished()
            else:
                run.begin()
        yield run


def settings_of(config: StageConfig) -> dict[str, Any]:
    """Return the settings that decide the result: all except `_MACHINE_ONLY` and paths, whose content is compared.

    Values are as JSON represents them.
    """
    return {
        name: settings_of(value) if isinstance(value, StageConfig) else json.loads(json.dumps(value, default=str))
        for name in type(config).model_fields
        if name not in _MACHINE_ONLY and not isinstance(value := getattr(config, name), Path)
    }


def provenance(verb: str, ranks_per_sequence: int = 1) -> Start:
    """Return the command, versions, commit, machine and time of this start."""
    processes = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
    return {
        "verb": verb,
        "command": shareable_command(sys.argv),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "longvit": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "mesh": {"data": processes // ranks_per_sequence, "sequence": ranks_per_sequence},
        },
    }


def _read_earlier(config: AnyRun, verb: str) -> RecordedInputs | None:
    """Return the inputs of an earlier start; None in a new folder, or after --overwrite has emptied the folder."""
    out = config.out
    starts = read_starts(out)
    if not starts and not (out / INPUTS).exists():
        return None
    earlier_verb = starts[-1]["verb"] if starts else verb
    if earlier_verb != verb:
        fix = "choose another --out"
        raise ConfigError(f"this folder holds a run of `longvit {earlier_verb}`", where=out, fix=fix)
    if config.overwrite:
        remove_result(out, verb)
        return None
    return RecordedInputs.read(out / INPUTS)


def remove_result(folder: Path, verb: str) -> None:
    """Remove all files that an earlier run of a verb has written to its folder."""
    for pattern in ("config.yaml", RUN, INPUTS, *WRITTEN[verb]):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def refuse_others(folder: Path, earlier: RecordedInputs, now: RecordedInputs, *, adds_slides: bool) -> frozenset[str]:
    """Refuse a run with other inputs than an earlier start; print and return the slides whose store has changed.

    Args:
        folder: Folder of the earlier result.
        earlier: Inputs of the earlier start.
        now: Inputs of this start.
        adds_slides: Whether stores may differ.

    Raises:
        ConfigError: Settings or files differ, or stores differ and must not.
    """
    before = _completed(earlier.settings, now.settings)
    changed = [key for key in now.settings if now.settings[key] != before.get(key)]
    if changed:
        raise ConfigError(f"this folder holds a run with other settings ({', '.join(changed)})", where=folder, fix=_FIX)
    found = differences(earlier, now)
    refused = [*found.files, *([] if adds_slides else found.stores)]
    if refused:
        what = f"the inputs of the run in this folder have changed since {earlier.recorded}: {'; '.join(refused)}"
        raise ConfigError(what, where=folder, fix=_FIX)
    for sentence in found.stores:
        print(f"since {earlier.recorded}: {sentence}", file=sys.stderr)
    return found.changed


def _completed(earlier: dict[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an earlier start, with the settings that later versions have added."""
    encoder = without_execution(earlier.get("encoder"))
    match encoder:
        case {"input": {"kind": "pixels"} as source, **others}:
            encoder = {**others, "input": _NEW_IN_PIXELS | source}
    before: dict[str, Any] = earlier | {"encoder": encoder}
    if isinstance(optimiser := before.get("optimiser"), dict):
        before["optimiser"] = _NEW_IN_OPTIMISER | optimiser
    if isinstance(task := now.get("task"), dict):
        new = {name: value for name, value in _NEW_IN_TASK.items() if name in task}
        earlier_task = before.get("task") or {}
        before["task"] = new | earlier_task
    return before


_NEW_IN_OPTIMISER, _NEW_IN_PIXELS = {"accumulate": 1}, {"min_tissue": 0.0, "stain": "none"}
_NEW_IN_TASK = json.loads(json.dumps({name: field.default for name, field in Task.model_fields.items()})) | {
    "endpoint": None,
    "event_time_column": None,
}
"""Settings that runs of earlier versions lack, with the values that they had in effect."""
_FIX = "choose another --out, or start again with --overwrite, which deletes the old result"


def _commit() -> str | None:
    """Return the commit of this source tree; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
