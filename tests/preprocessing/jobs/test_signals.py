"""SIGINT and SIGTERM raise one exception with its exit code; a second signal ends the process at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from preprocessing.jobs.signals import StopSignal, stopped_by_signals

STUBBORN = """
import time
from preprocessing.jobs.signals import stopped_by_signals
with stopped_by_signals():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_unwinds_and_handlers_are_as_before_afterwards(number, code):
    before = signal.getsignal(number)
    with pytest.raises(StopSignal) as stop, stopped_by_signals():
        signal.raise_signal(number)
    assert stop.value.exit_code == code
    assert number.name in str(stop.value)
    assert signal.getsignal(number) is before


def test_a_thread_leaves_the_handlers_alone():
    seen = []

    def work():
        with stopped_by_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_a_second_signal_ends_what_does_not_end():
    command, environment = [sys.executable, "-c", STUBBORN], os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"cleaning\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - begun < 10
