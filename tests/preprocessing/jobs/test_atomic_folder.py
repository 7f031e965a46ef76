import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from preprocessing.errors import BusyError, StoreError
from preprocessing.jobs.atomic_folder import claimed, is_claimed

BUILD = """
import sys, time
from pathlib import Path
from preprocessing.jobs.atomic_folder import claimed
with claimed(Path(sys.argv[1]), "file") as partial:
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
    with claimed(target, "file") as partial:
        (partial / "file").write_text(text)


def build_half(target):
    with claimed(target, "file") as partial:
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
    with pytest.raises(BusyError, match="another process"):
        build(tmp_path / "target", "mine")
    assert is_claimed(tmp_path / "target")
    assert (tmp_path / ".target.partial" / "half").exists()


def test_what_a_killed_process_left_is_used_again(tmp_path, builder):
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    assert (tmp_path / ".target.partial" / "half").exists()
    build(tmp_path / "target", "mine")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["file"]
    assert {path.name for path in tmp_path.iterdir()} == {"target"}


def test_a_process_that_waits_for_a_lock_which_goes_away_takes_the_new_one(tmp_path, monkeypatch):
    """Between opening the lock's file and locking it, its owner may end, and remove it."""
    real, calls = fcntl.flock, []

    def removed_meanwhile(lock, operation):
        calls.append(lock)
        if len(calls) == 1:
            (tmp_path / ".target.lock").unlink()
        real(lock, operation)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with claimed(tmp_path / "target", "file") as folder:
        (folder / "file").write_text("mine")
        assert is_claimed(tmp_path / "target")
    assert len(calls) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"target"}


def test_a_block_that_writes_nothing_leaves_the_target_as_it_was(tmp_path):
    build(tmp_path / "target", "old")
    with claimed(tmp_path / "target", "file"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
    assert (tmp_path / "target" / "file").read_text() == "old"


def test_the_old_comes_back_if_a_run_died_before_the_new_was_in_place(tmp_path):
    build(tmp_path / ".target.old", "old")
    with pytest.raises(FileNotFoundError):
        build_half(tmp_path / "target")
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
    assert (tmp_path / "target" / "file").read_text() == "old"


def test_the_old_is_cleared_away_if_a_run_died_after_the_new_was_in_place(tmp_path):
    build(tmp_path / ".target.old", "old")
    (tmp_path / "target").mkdir()
    with claimed(tmp_path / "target", "file"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
    assert list((tmp_path / "target").iterdir()) == []


def test_a_link_is_replaced_and_what_it_points_to_is_not_touched(tmp_path):
    build(tmp_path / "elsewhere", "theirs")
    (tmp_path / "target").symlink_to(tmp_path / "elsewhere")
    build(tmp_path / "target", "mine")
    assert {path.name for path in tmp_path.iterdir()} == {"target", "elsewhere"}
    assert not (tmp_path / "target").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "theirs"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match="cannot lock files") as refused:
        build(tmp_path / "target", "mine")
    assert "flock" in refused.value.fix
    assert list(tmp_path.iterdir()) == []
