"""How every verb ends: on SIGINT and SIGTERM, on a full or read-only disk, and where another run is at work."""

import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from longvit.cli.app import main
from longvit.config import VERBS
from preprocessing.errors import BusyError, OutputError

HOLDS = {
    "tile": ("preprocessing.tile", "tile_slide", 1),
    "pretrain": ("longvit.pretraining.pretrain_module", "PretrainModule.training_step", 2),
    "split": ("longvit.cohort.split", "write_folds", 1),
    "audit": ("longvit.cohort.audit", "write_audit", 1),
    "finetune": ("longvit.finetuning.crossvalidation", "_train", 2),
    "predict": ("longvit.prediction.ensemble", "Ensemble.predict", 2),
    "encode": ("longvit.encoding.encode", "encode_slide", 2),
    "evaluate": ("longvit.evaluation.evaluate", "write_whole", 3),
    "explain": ("longvit.explanation.explain", "mean_maps", 2),
    "view": ("longvit.viewer.static", "track", 1),
    "demo": ("longvit.demo", "make_cohort", 1),
}
"""Of each verb a function in the midst of its work, and the call of it that a test interrupts."""
RESULTS = {
    "tile": "S1.zarr/tiles/c/0/0/0/0",
    "pretrain": "encoder.safetensors",
    "split": "splits_2.csv",
    "finetune": "predictions.csv",
    "predict": "predictions.csv",
    "encode": "slides/P09-0.safetensors",
    "evaluate": "metrics.json",
    "explain": "P09-0/scores.csv",
    "view": "index.html",
}
"""A file of each verb's result that is equal to the byte between equal runs."""
KILLS = int(os.environ.get("LONGVIT_KILLS", "5"))
"""Random moments at which the slow test kills each verb."""


class Command:
    """A command in a process of its own, which stops in the midst of its work.

    Args:
        arguments: The command line.
        folder: Receives what the process prints, and the mark that it has stopped.
        hold: The call in which it stops.
        fresh: Start a new interpreter, in which loader processes can be forked; else fork this one, which is quick.
    """

    def __init__(self, arguments: list[str], folder: Path, hold: tuple[str, str, int] | None, *, fresh: bool) -> None:
        self.held, self.out = folder / "held", folder / "said"
        given = arguments, str(self.out), str(self.held), hold
        if fresh:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen([sys.executable, __file__, json.dumps(given)], env=environment)
        else:
            self._process = multiprocessing.get_context("fork").Process(target=_run, args=given)
            self._process.start()
        self.process = psutil.Process(self._process.pid)

    def wait_until_held(self) -> list[psutil.Process]:
        """Wait until it is in the midst of its work; return its child processes."""
        deadline = time.monotonic() + 60
        while not self.held.exists():
            assert self.is_running(), self.said()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self.process.children(recursive=True)

    def is_running(self) -> bool:
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    def end(self) -> int:
        """Wait until it ends; return its exit code."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.wait(60)
        self._process.join(60)
        assert self._process.exitcode is not None
        return self._process.exitcode

    def said(self) -> str:
        return self.out.read_text() if self.out.exists() else ""


def _run(arguments: list[str], out: str, held: str, hold: tuple[str, str, int] | None) -> None:
    sys.stdout = sys.stderr = open(out, "w")  # noqa: SIM115 - until this process ends
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    if hold is not None:
        _hold(*hold, Path(held))
    sys.argv = ["longvit", *arguments]
    main()


def _hold(module: str, name: str, call: int, held: Path) -> None:
    """Let one call of a function wait for a minute, and mark that it does."""
    *owner, attribute = name.split(".")
    holder = importlib.import_module(module)
    for part in owner:
        holder = getattr(holder, part)
    function, calls = getattr(holder, attribute), []

    def waiting(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            held.touch()
            time.sleep(60)
        return function(*args, **kwargs)

    setattr(holder, attribute, waiting)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Command]]:
    commands = []

    def start_(arguments: list[str], hold: tuple[str, str, int] | None = None, *, fresh: bool = False) -> Command:
        folder = tmp_path / f"process_{len(commands)}"
        folder.mkdir()
        commands.append(Command(arguments, folder, hold, fresh=fresh))
        return commands[-1]

    yield start_
    for command in commands:
        if command.is_running():
            command.process.kill()
            command.end()


def with_loaders(arguments: list[str]) -> list[str]:
    """The same command with two processes that read stores."""
    place = arguments.index("--loader-workers") + 1
    return [*arguments[:place], "2", *arguments[place + 1 :]]


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=15)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name.endswith((".partial", ".lock", ".old"))]


@pytest.fixture
def ready(request, lab, verb):
    """The cohort, after `finetune` for the verbs that need its models."""
    return request.getfixturevalue("trained") if verb in ("predict", "evaluate", "explain") else lab


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_ends_a_verb_with_its_code_and_the_same_command_goes_on(verb, number, code, ready, start):
    loads = verb == "pretrain"
    arguments = ready.command(verb)
    command = start(with_loaders(arguments) if loads else arguments, HOLDS[verb], fresh=loads)
    children = command.wait_until_held()
    assert len(children) == (2 if loads else 0)
    os.kill(command.process.pid, number)
    assert command.end() == code
    assert f"interrupted ({number.name}); finished work is kept" in command.said()
    assert "Traceback" not in command.said()
    assert gone(children)
    assert temporary_files(ready.root) == []
    if verb in RESULTS:
        assert ready.run(verb) == 0
        undisturbed = ready.root / "undisturbed"
        assert ready.run(verb, out=undisturbed) == 0
        result = RESULTS[verb]
        assert (ready.root / verb / result).read_bytes() == (undisturbed / result).read_bytes()


def test_a_viewer_that_serves_ends_with_the_code_of_the_signal(lab, start):
    command = start(["view", str(lab.stores), "--no-browser"])
    deadline = time.monotonic() + 60
    while "open this address" not in command.said():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(command.process.pid, signal.SIGTERM)
    assert command.end() == 143


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_no_loader_outlives_a_killed_training(verb, lab, start):
    step = {
        "pretrain": HOLDS["pretrain"],
        "finetune": ("longvit.finetuning.finetune_module", "FinetuneModule.training_step", 1),
    }
    arguments = with_loaders(lab.command(verb))
    if verb == "finetune":
        arguments[arguments.index("--trained-blocks") + 1] = "2"
    command = start(arguments, step[verb], fresh=True)
    children = command.wait_until_held()
    assert len(children) == 2
    command.process.kill()
    assert command.end() == -signal.SIGKILL
    assert gone(children)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "tile"])
def test_a_second_run_in_the_same_folder_is_refused_and_the_first_is_not_disturbed(verb, ready, start, capsys):
    if verb == "audit":
        pytest.skip("audits write one file, whole, and nothing else")
    first = start(ready.command(verb), HOLDS[verb])
    first.wait_until_held()
    if verb == "explain":  # slide by slide, so that several may work in one folder
        assert ready.run(verb) == 1
        assert "P09-0: another process is writing here" in capsys.readouterr().err
    else:
        with pytest.raises(BusyError, match="another process is writing here"):
            ready.run(verb)
    os.kill(first.process.pid, signal.SIGTERM)
    assert first.end() == 143


def full(disk: Path, remount: Callable[[str], None]) -> Path:
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1024)):
            pass
    return disk / "out"


def read_only(disk: Path, remount: Callable[[str], None]) -> Path:
    remount("ro")
    return disk / "out"


def too_long(disk: Path, remount: Callable[[str], None]) -> Path:
    return disk / ("a" * 256)


def a_file(disk: Path, remount: Callable[[str], None]) -> Path:
    (disk / "file").touch()
    return disk / "file" / "out"


@pytest.mark.parametrize("refuse", [full, read_only, too_long, a_file])
@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_cannot_be_written_is_one_sentence_in_every_verb(verb, refuse, ready, small_disk):
    out = refuse(*small_disk)
    with pytest.raises(OutputError, match="cannot write") as error:
        ready.run(verb, out=out)
    assert error.value.fix
    assert str(small_disk[0]) in str(error.value.where)
    assert temporary_files(small_disk[0]) == []


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "encode", "explain"])
def test_a_disk_that_fills_up_during_the_work_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    verb, ready, small_disk
):
    disk, remount = small_disk
    (disk / "filler").write_bytes(bytes((1 << 20) - 40_000))
    with pytest.raises(OutputError, match="No space left on device"):
        ready.run(verb, out=disk / "out")
    assert temporary_files(disk) == []
    remount("size=64m")
    assert ready.run(verb, out=disk / "out") == 0
    assert ready.run(verb, out=ready.root / "undisturbed") == 0
    result = RESULTS[verb]
    assert (disk / "out" / result).read_bytes() == (ready.root / "undisturbed" / result).read_bytes()
    shutil.rmtree(disk / "out")


KILLED = {verb: command for verb, command in RESULTS.items() if verb not in ("split", "view")}


@pytest.mark.slow
@pytest.mark.parametrize("verb", KILLED)
def test_a_verb_that_is_killed_at_random_moments_ends_in_the_bytes_of_an_undisturbed_run(verb, ready, start, capsys):
    parallel = verb == "finetune"
    arguments = with_loaders(ready.command(verb)) if verb == "pretrain" else ready.command(verb)
    if parallel:
        arguments[arguments.index("--trained-blocks") + 1] = "2"
        arguments += ["--parallel-folds", "2"]
    fresh, out, result = verb in ("pretrain", "finetune"), ready.root / verb, KILLED[verb]
    seconds = 600.0
    for _ in range(2):  # the first warms caches
        shutil.rmtree(out, ignore_errors=True)
        begun = time.monotonic()
        assert start(arguments, fresh=fresh).end() == 0
        seconds = min(seconds, time.monotonic() - begun)
    expected = (out / result).read_bytes()
    rng, kills, compared = random.Random(verb), 0, 0
    while kills < KILLS or not compared:
        shutil.rmtree(out)
        for _ in range(rng.randrange(1, 5)):
            command = start(arguments, fresh=fresh)
            moment = time.monotonic() + rng.uniform(0, seconds)
            while (runs := command.is_running()) and time.monotonic() < moment:
                time.sleep(0.005)
            if runs:
                children = command.process.children(recursive=True)
                command.process.kill()
                kills += command.end() == -signal.SIGKILL
                assert gone(children), "processes outlive the verb"
            else:  # done, so that it would do nothing more
                assert command.end() == 0, command.said()
                break
        final = start(arguments, fresh=fresh)
        assert final.end() == 0, final.said()
        assert (out / result).read_bytes() == expected
        assert temporary_files(out) == []
        compared += 1
    with capsys.disabled():
        print(f"{verb}: {kills} kills, {compared} results compared, {seconds:.1f} s undisturbed")


if __name__ == "__main__":
    _run(*json.loads(sys.argv[1]))
