import os
import signal
import subprocess
import sys

import pytest

from preprocessing.claim import claimed
from preprocessing.errors import StoreError

BUILD = """
import sys, time
from pathlib import Path
from preprocessing.claim import claimed
with claimed(Path(sys.argv[1])) as partial:
    (partial / "half").write_text("written")
    print("building", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def builder(tmp_path):
    """Another process in the middle of building `tmp_path / 'target'`."""
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path / "target")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"building\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def build(target, text):
    with claimed(target) as partial:
        (partial / "file").write_text(text)


def build_half(target):
    with claimed(target) as partial:
        (partial / "file").write_text("half")
        (partial / "none" / "file").write_text("fails: there is no such folder")


def test_what_is_built_appears_whole_and_leaves_nothing_else(tmp_path):
    build(tmp_path / "target", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target" / "file").read_text() == "new"


def test_what_is_built_again_replaces_the_old(tmp_path):
    build(tmp_path / "target", "old")
    (tmp_path / "target" / "more").write_text("of the old")
    build(tmp_path / "target", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
    assert [(path.name, path.read_text()) for path in (tmp_path / "target").iterdir()] == [("file", "new")]


def test_a_failure_leaves_the_old_as_it_was(tmp_path):
    build(tmp_path / "target", "old")
    with pytest.raises(FileNotFoundError):
        build_half(tmp_path / "target")
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
    assert (tmp_path / "target" / "file").read_text() == "old"


def test_two_processes_do_not_build_the_same(tmp_path, builder):
    with pytest.raises(StoreError, match="another process"):
        build(tmp_path / "target", "mine")
    assert (tmp_path / ".target.partial" / "half").exists()


def test_what_a_killed_process_left_is_used_again(tmp_path, builder):
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    assert (tmp_path / ".target.partial" / "half").exists()
    build(tmp_path / "target", "mine")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["file"]
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
