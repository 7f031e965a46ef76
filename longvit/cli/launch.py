"""Start of a verb as several processes of this machine, as `torchrun --standalone` starts them."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from preprocessing.errors import ConfigError, PipelineError
from preprocessing.jobs.signals import StopSignal

_PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl."""
_GRACE_S = 60.0
"""Time for the other processes to end by themselves after one of them has failed, seconds."""


def launched() -> bool:
    """Return whether torchrun, Slurm or `launch` has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


@contextmanager
def refused_on_all_ranks(*, meshed: bool) -> Iterator[None]:
    """Print an error of this block, and end all other ranks with it, which would wait for this one.

    Args:
        meshed: Whether the verb has ranks that wait for each other.

    Raises:
        PipelineError: As in the block; its sentence names this rank.
    """
    try:
        yield
    except PipelineError as error:
        if not (meshed and launched()):
            raise
        problem = error.what, str(error.where), error.fix
        rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID"))
        error.what = f"rank {rank} on {socket.gethostname()} cannot start: {error.what}"
        print(f"error: {error}", file=sys.stderr, flush=True)
        error.said = True
        from longvit.training.joining import send_refusal  # loads torch

        send_refusal(problem)
        raise


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run a command line as so many processes; return the exit code, which is that of the first that failed.

    All processes have ended when this returns. A process that loses another ends by itself, with a message.

    Raises:
        ConfigError: The system is Windows, which cannot interrupt a process and let it clean up.
    """
    if sys.platform == "win32":
        fix = "omit --devices, or run on Linux or macOS"
        raise ConfigError("Windows runs a verb as one process only", where=f"--devices {processes}", fix=fix)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-m", "longvit", *arguments]
    sizes = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": str(os.getpid())}
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    common = threads | dict(os.environ) | address | sizes
    started = [
        subprocess.Popen(
            command,
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            process_group=0,  # else a terminal's Ctrl-C reaches it, too, and ends it at once as a second signal
            preexec_fn=_end_with_parent,
        )
        for rank in range(processes)
    ]
    number = signal.SIGTERM
    try:
        return _wait(started)
    except StopSignal as stop:
        number = stop.number
        raise
    finally:
        for process in started:
            process.send_signal(number)  # which has no effect on one that has ended
        for process in started:
            process.wait()


def _end_with_parent() -> None:
    """Let Linux interrupt this process if its parent is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(started: Sequence[subprocess.Popen]) -> int:
    failed, since = 0, 0.0
    while any(process.poll() is None for process in started):
        codes = [process.returncode for process in started if process.returncode]
        if codes and not failed:
            failed, since = codes[0], time.monotonic()
        if failed and time.monotonic() - since > _GRACE_S:
            break
        time.sleep(0.1)
    return failed or next((process.returncode for process in started if process.returncode), 0)
