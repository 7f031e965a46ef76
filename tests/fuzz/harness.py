"""Fuzz cases in a process that is used again and again, so that a crash or a hang is a fault of one case.

`LONGVIT_FUZZ_CASES` is the number of cases of each kind (`make fuzz` sets 10,000), `LONGVIT_FUZZ_SEED` the first one.
"""

import json
import os
import select
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

CASES = int(os.environ.get("LONGVIT_FUZZ_CASES", "200"))
FIRST = int(os.environ.get("LONGVIT_FUZZ_SEED", "0"))
HANG = 300
"""Seconds without an answer; a case may take 20 s of processor time, on a machine that others use too."""


@dataclass
class Outcomes:
    """Numbers of cases that were read and refused, and what the others did, by their seed."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)


def run_cases(targets: Path, name: str, folder: Path, cases: int = CASES) -> Outcomes:
    """Run the cases of one target; see `worker.py`."""
    found, worker = Outcomes(), None
    for seed in range(FIRST, FIRST + cases):
        worker = worker or _start(targets, name, folder)
        answer = _ask(worker, seed)
        if answer is None:
            answer = f"fault: no answer, exit code {_end(worker)} (-9: it took more than {HANG} s)"
            worker = None
        found.counts[answer.partition(":")[0]] += 1
        if answer.startswith("fault"):
            found.faults[seed] = answer
            if worker is not None:  # a fresh one: it may have lost its memory, or found too much
                _end(worker)
                worker = None
    if worker is not None:
        _end(worker)
    return found


def _start(targets: Path, name: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), str(targets), name, str(folder)]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)


def _end(worker: subprocess.Popen) -> int:
    """Kill a worker, if it still runs, and return its exit code."""
    worker.kill()
    with suppress(BrokenPipeError), worker:  # which closes its pipes
        pass
    return worker.returncode


def _ask(worker: subprocess.Popen, seed: int) -> str | None:
    try:
        worker.stdin.write(f"{seed}\n")
        worker.stdin.flush()
    except BrokenPipeError:
        return None
    if not select.select([worker.stdout], [], [], HANG)[0]:
        return None
    line = worker.stdout.readline()
    return json.loads(line) if line else None
