"""Parallel work in processes: a process that dies fails one item only, and all processes end with the run."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")
_own: list[Connection] = []
"""Reading and writing end of this process's lifeline, after it has been created."""


def completed(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Run `function` on every item in `workers` processes, and yield each item with its future when it is finished.

    A process that dies breaks its pool, and the item that killed it cannot be identified. So each item that was running
    is tried again in a process of its own. The item that kills this process too gets a future with `BrokenProcessPool`.
    The other items continue. The processes end at once if the caller stops, is interrupted or is killed.
    """
    waiting = list(reversed(items))
    while waiting:
        suspects = yield from _until_one_dies(function, waiting, workers)
        for item in suspects:
            with _pool(1) as pool:
                future = pool.submit(function, item)
                wait([future])
                yield item, future


def lifeline() -> Connection:
    """Return the reading end of a pipe that closes when this process ends for any reason; one pipe per process."""
    if not _own:
        _own.extend(multiprocessing.Pipe(duplex=False))  # type: ignore[arg-type] # another class on Windows
    return _own[0]


def end_with(parent: Connection) -> None:
    """End this process at once when its parent closes a pipe or dies, and ignore Ctrl-C, which the parent handles.

    A terminal sends Ctrl-C to all its processes. The pipe never carries data.

    Args:
        parent: Reading end of the pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked process inherits its parent's handler
    for writing_end in _own[1:]:  # inherited by a forked process, which would keep its parent's pipe open
        writing_end.close()

    def watch() -> None:
        with suppress(OSError):  # of a pipe that is closed already, on Windows
            parent.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _until_one_dies(
    function: Callable[[Item], Result], waiting: list[Item], workers: int
) -> Generator[tuple[Item, Future[Result]], None, list[Item]]:
    """Run the items of `waiting`, from its end on, and yield each with its finished future.

    Started items are removed from `waiting`.

    Returns:
        Items that were running when a process died; empty if none died.
    """
    running: dict[Future[Result], Item] = {}
    with _pool(workers) as pool:
        while waiting or running:
            with suppress(BrokenProcessPool):  # the futures below are then broken, too
                while waiting and len(running) < workers:  # no more: all submitted items would have to be tried again
                    running[pool.submit(function, waiting[-1])] = waiting[-1]
                    waiting.pop()
            ready = wait(running, return_when=FIRST_COMPLETED).done
            done = [future for future in ready if not isinstance(future.exception(), BrokenProcessPool)]
            for future in done:
                yield running.pop(future), future
            if len(done) < len(ready) or not ready:
                break
        return list(running.values())


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose processes end with the block, and at once if the block raises.

    Each process watches a pipe whose other end is open in this process only. The pipe closes if the block raises or
    this process is killed.
    """
    # Spawned, not forked, because the libraries used here run threads.
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(theirs,))  # type: ignore
    with theirs, ours, _main_hidden():
        try:
            yield pool
        except BaseException:
            ours.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Prevent new processes from running the user's script again.

    A script without a guard (`if __name__ == "__main__"`) would run again in each new process. A script from standard
    input cannot be found at all.
    """
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    vars(main).update(__file__=None, __spec__=None)
    try:
        yield
    finally:
        del main.__file__
        vars(main).update(hidden)


def _start(parent: Connection) -> None:
    cv2.setNumThreads(1)  # parallelism comes from the processes
    end_with(parent)
