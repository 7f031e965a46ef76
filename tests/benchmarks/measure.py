"""Run a command that prints one line of JSON last, and add the peak memory of its process tree to it.

    python tests/benchmarks/measure.py python tests/benchmarks/tile_ours.py slide.svs stores

Memory is resident memory (RSS), summed over the process and its descendants every 20 ms. Pages that two processes share
count twice. The numbers are from /proc, so this needs Linux.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INTERVAL = 0.02
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def run_measured(command: Sequence[str | Path]) -> dict[str, Any]:
    """Run a command and return the JSON that it printed, with its peak memory as `peak_mb`.

    The command imports the packages of this checkout, not installed ones.

    Raises:
        RuntimeError: The command failed; the message contains the end of its output.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([str(part) for part in command], text=True, env=environment, **pipes)
    peak_mb, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            peak_mb[0] = max(peak_mb[0], sum(map(resident_mb, process_tree(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{err[-3000:]}")
    return json.loads(out.splitlines()[-1]) | {"peak_mb": peak_mb[0]}


def process_tree(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants, without processes that end meanwhile."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = thread.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from process_tree(int(child))


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, MB (10^6 bytes); 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB
    except OSError:
        return 0.0


if __name__ == "__main__":
    print(json.dumps(run_measured(sys.argv[1:])))
