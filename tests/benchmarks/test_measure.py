"""The measurements can be trusted: memory of the whole process tree is seen, and a failure is no result."""

import sys
from pathlib import Path

import pytest

HOLD = "import json, time; kept = b'x' * ({mb} * 10**6); {more}; time.sleep(0.3); print(json.dumps({{'tiles': 1}}))"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_of_a_process_and_of_what_it_started_is_added(measured):
    child = HOLD.format(mb=100, more="0")
    both = HOLD.format(mb=150, more=f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    alone, together = measured("-c", HOLD.format(mb=150, more="0")), measured("-c", both)
    assert together["tiles"] == 1
    assert 150 < alone["peak_mb"] < 200
    assert 100 < together["peak_mb"] - alone["peak_mb"] < 150


def test_a_command_that_fails_is_an_error(measured):
    with pytest.raises(AssertionError, match="it broke"):
        measured("-c", "raise SystemExit('it broke')")


def test_commands_import_this_checkout(measured):
    code = "import json, preprocessing; print(json.dumps({'file': preprocessing.__file__}))"
    assert Path(measured("-c", code)["file"]).parents[1] == Path(__file__).parents[2]
