"""Reading at offsets, writing in pieces and locking, with the calls of this system and without those Windows lacks."""

import errno
import fcntl
import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from preprocessing.jobs import system as ours


def locking(descriptor: int, mode: int, n: int) -> None:
    """msvcrt.locking, whose error for a file that is locked is EACCES."""
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


MSVCRT = SimpleNamespace(locking=locking, LK_NBLCK=fcntl.LOCK_EX | fcntl.LOCK_NB, LK_UNLCK=fcntl.LOCK_UN)


@pytest.fixture(params=["here", "windows"])
def system(request, monkeypatch) -> ModuleType:
    """The module, and a copy of it that was loaded without fcntl, pread and writev."""
    if request.param == "here":
        return ours
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", MSVCRT)
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "writev")
    spec = importlib.util.spec_from_file_location("system_of_windows", ours.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.read_at is module._read_by_seeking
    return module


def test_threads_read_the_bytes_at_their_offsets_and_the_place_of_the_file_stays(tmp_path, system):
    content = np.random.default_rng(0).bytes(1 << 20)
    (tmp_path / "file").write_bytes(content)
    offsets = np.random.default_rng(1).integers(0, len(content), 4000).tolist()
    with FileIO(tmp_path / "file") as file, ThreadPoolExecutor(8) as threads:
        file.seek(7)
        read = list(threads.map(lambda at: system.read_at(file.fileno(), 900, at), offsets))
        assert file.tell() == 7
        assert system.read_at(file.fileno(), 10, len(content) + 1) == b""
        with pytest.raises(OSError, match="Invalid argument"):
            system.read_at(file.fileno(), 10, -1)
    assert read == [content[at : at + 900] for at in offsets]


@pytest.mark.parametrize("most", [5, 1000])
def test_pieces_follow_each_other_even_where_the_system_takes_only_some(tmp_path, monkeypatch, system, most):
    if hasattr(os, "writev"):
        monkeypatch.setattr(os, "writev", lambda to, pieces: os.write(to, b"".join(pieces)[:most]))
    with FileIO(tmp_path / "file", "wb") as file:
        system.write_pieces(file, [b"ab", memoryview(b"cdef"), b"", b"g"])
        system.write_pieces(file, [b"hi"])
    assert (tmp_path / "file").read_bytes() == b"abcdefghi"


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_a_lock_is_held_by_one_and_free_after_its_file_is_removed(tmp_path, system):
    path = tmp_path / "lock"
    first, second = opened(path), opened(path)
    system.lock_file(first)
    with pytest.raises(BlockingIOError):
        system.lock_file(second)
    system.remove_locked(path, first)
    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
    system.lock_file(second)
    os.close(second)


def test_a_file_system_without_locks_is_not_taken_for_a_lock_of_another_process(tmp_path, system, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = opened(tmp_path / "lock")
    with pytest.raises(OSError, match="No locks available") as refused:
        system.lock_file(lock)
    os.close(lock)
    assert not isinstance(refused.value, BlockingIOError)


def test_a_lock_file_that_cannot_be_removed_is_closed(tmp_path, system, monkeypatch):
    path = tmp_path / "lock"
    lock = opened(path)
    system.lock_file(lock)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "it is open in another process")

    monkeypatch.setattr(Path, "unlink", refuse)
    system.remove_locked(path, lock)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lock)
