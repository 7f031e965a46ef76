import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from preprocessing.jobs.processes import completed

PARENT = """
import sys, time, pathlib
from preprocessing.jobs.processes import completed
if __name__ == "__main__":
    for item, future in completed(time.sleep, [0, 0, 60, 60], 2):
        print("one is done", flush=True)
"""


def square_or_die(number):
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die_once(folder):
    """Kill this process, unless that was done before."""
    mark = Path(folder) / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def children_of(pid):
    """Processes, in any generation, that `pid` started and that still run."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        parents[int(stat.parent.name)] = (int(fields[1]), fields[0])
    found, queue = [], [pid]
    while queue:
        queue = [child for child, (parent, state) in parents.items() if parent in queue and state != "Z"]
        found += queue
    return found


def gone(pids, seconds=10.0):
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_every_item_comes_back_with_its_result():
    results = {item: future.result() for item, future in completed(square_or_die, range(5), 2)}
    assert results == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}


def test_an_item_that_kills_its_process_is_named_and_the_others_go_on():
    futures = dict(completed(square_or_die, [1, 2, -3, 4, -5, 6], 2))
    killed = [item for item, future in futures.items() if isinstance(future.exception(), BrokenProcessPool)]
    assert sorted(killed) == [-5, -3]
    assert sorted(future.result() for item, future in futures.items() if item > 0) == [1, 4, 16, 36]


def test_an_item_whose_process_was_killed_once_is_tried_again(tmp_path):
    assert [future.result() for _, future in completed(die_once, [str(tmp_path)], 1)] == ["alive"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to find processes in")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout.readline() == b"one is done\n"
        workers = children_of(parent.pid)
        assert len(workers) >= 2
        begun = time.monotonic()
        parent.send_signal(number)
        parent.wait(10)
    assert gone(workers)
    assert time.monotonic() - begun < 10  # and not the 60 s that they had to go


def test_a_pipe_that_was_closed_before_the_watch_ends_the_process_too():
    """On Windows its poll raises; here it returns."""
    code = (
        "import time; from preprocessing.jobs.processes import end_with\n"
        "class Closed:\n    def poll(self, timeout): raise BrokenPipeError\n"
        "end_with(Closed()); time.sleep(30)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=20, env=os.environ).returncode == 1


def test_leaving_early_stops_the_work():
    begun = time.monotonic()
    for _ in completed(time.sleep, [0, 30, 30], 2):
        break
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_script_without_a_guard_is_not_run_again_by_its_workers(tmp_path, how):
    script = (
        "from preprocessing.jobs.processes import completed\n"
        "print('begun', flush=True)\n"
        "print(sorted(future.result() for _, future in completed(abs, [-1, 2, -3], 2)))\n"
        "import sys; print(sys.modules['__main__'].__dict__.get('__file__'))\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    options = {"args": [sys.executable, path]} if how == "file" else {"args": [sys.executable], "input": script}
    done = subprocess.run(**options, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"begun\n[1, 2, 3]\n{path if how == 'file' else '<stdin>'}\n"
