"""Work over processes: one that dies takes down one item, none outlives the run, and all stop when they are told to."""

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
"""Reading and writing end of this process's lifeline, once there is one."""


def completed(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Run `function` on every item in `workers` processes; yields items with their finished futures, as they get ready.

    A process that dies breaks its pool, and nobody can say which of the items then in work it was. So those are tried
    again, each in a process alone: the one that kills that too has a future with `BrokenProcessPool`, the rest go on.
    If the caller stops or is interrupted, the processes end at once; they also end when this process is killed.
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
    """Return the reading end of a pipe that closes when this process ends, however it ends; one for each process."""
    if not _own:
        _own.extend(multiprocessing.Pipe(duplex=False))
    return _own[0]


def end_with(parent: Connection) -> None:
    """End this process at once when its parent closes a pipe or dies, and leave Ctrl-C to the parent.

    A terminal sends Ctrl-C to all of its processes. Nothing is ever sent through the pipe.

    Args:
        parent: Reading end of the pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the handler that a forked process has from its parent
    for writing_end in _own[1:]:  # of a forked process, which would keep its parent's pipe open
        writing_end.close()

    def watch() -> None:
        parent.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _until_one_dies(
    function: Callable[[Item], Result], waiting: list[Item], workers: int
) -> Generator[tuple[Item, Future[Result]], None, list[Item]]:
    """Take items off the end of `waiting`; returns those in work when a process died, none if all is done."""
    running: dict[Future[Result], Item] = {}
    with _pool(workers) as pool:
        while waiting or running:
            with suppress(BrokenProcessPool):  # if it is broken, so are the futures below
                while waiting and len(running) < workers:  # no more, so that only items in work fall under suspicion
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
    """Processes that end with the block, and at once if it raises.

    Each watches a pipe whose other end is open here only: it closes when we say so, and when we are killed.
    """
    # Spawned, not forked: the libraries below run threads.
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(theirs,))
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
    """Keep new processes from running the user's script again, which they need not.

    A script without a guard (`if __name__ == "__main__"`) would begin anew in each of them, and one from standard input
    cannot be found.
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
    cv2.setNumThreads(1)  # the processes are the parallelism
    end_with(parent)
