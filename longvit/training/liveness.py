"""Watch over the processes of a mesh: if one of them stops, all others end with an error that names it.

Every rank has one connection to rank 0, and a thread sends a line over it every second, however long the computation
takes. A process that dies closes its connection. A process that is frozen, or whose host has vanished, is silent, and
counts as lost after the time that the settings give. Rank 0 passes the news on.

A rank that learns of a loss raises `RankError`, so that it unwinds and frees its run folder. A process that cannot
raise, because it is blocked in a collective with a silent rank, is ended with the same message and exit code. A process
that has itself received a signal ends with the signal's exit code, whichever of the other ranks has ended before.
"""

import ctypes
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from longvit.training.link import MAX_MESSAGE, Link
from preprocessing.errors import ConfigError, PipelineError, RankError
from preprocessing.jobs.signals import STOPPING, StopSignal

_PERIOD = 1.0
"""Longest time between two lines, seconds."""
_GRACE = 2.0
"""Time for a rank to end by itself, because its own collective fails or the same error is raised in it, seconds."""
_LAST = 5
"""Time for the computing thread to unwind after `RankLost` is raised in it, seconds."""
_PORT = "longvit/liveness"
"""Key of rank 0's port in the rendezvous' store."""

Problem = Sequence[str]
"""Description, place and fix of an error."""
News = Mapping[str, Any]
"""Message that a `rank` ends, and its `problem`; None if it has finished. `died` if it could not send this itself."""


class RankLost(BaseException):
    """Request to the computing thread to end, because another rank has stopped; it becomes a `RankError`."""


def meet(
    store: Store, rank: int, size: int, *, facts: Mapping[str, object], problem: Problem | None, timeout_s: int
) -> "Watch":
    """Open a connection from every rank to rank 0, compare the facts of all ranks, and start to watch over them.

    Args:
        store: Store of the rendezvous, on a host that all ranks reach by `MASTER_ADDR`.
        rank: Rank of this process.
        size: Number of ranks.
        facts: Name -> value of each setting that must be equal on all ranks.
        problem: Reason why this rank cannot take part.
        timeout_s: Time to wait for the other ranks, and time after which a silent rank counts as lost, seconds.

    Raises:
        ConfigError: A rank has a problem or another fact; raised on every rank.
        OSError: Another rank does not answer.
    """
    hello = {"rank": rank, "host": socket.gethostname(), "problem": problem, "facts": dict(facts)}
    with ExitStack() as opened:
        if rank == 0:
            links, hellos = _welcome(store, size, hello, timeout_s, opened)
            answer = {"hosts": [one["host"] for one in hellos], "problem": _first_problem(hellos)}
            for link in links.values():
                link.send(answer)
        else:
            address = os.environ["MASTER_ADDR"], int(store.get(_PORT))
            links = {0: Link(opened.enter_context(socket.create_connection(address, timeout_s)), timeout_s)}
            links[0].send(hello)
            answer = links[0].message()
        if answer["problem"]:
            what, where, fix = answer["problem"]
            raise ConfigError(what, where=where, fix=fix)
        return Watch(rank, answer["hosts"], links, timeout_s, opened.pop_all())


def _welcome(
    store: Store, size: int, own: dict[str, Any], timeout_s: int, opened: ExitStack
) -> tuple[dict[int, Link], list[dict[str, Any]]]:
    """Return rank 0's connections to all other ranks, and the first message of every rank."""
    links: dict[int, Link] = {}
    hellos = {0: own}
    with _listening(os.environ["MASTER_ADDR"], size) as server:
        server.settimeout(timeout_s)
        store.set(_PORT, str(server.getsockname()[1]))
        while len(hellos) < size:
            link = Link(opened.enter_context(server.accept()[0]), min(_LAST, timeout_s))
            with suppress(OSError, ValueError):  # a stranger, such as a scanner of ports
                hello = link.message()
                if hello.get("rank") in range(1, size):
                    hellos[hello["rank"]], links[hello["rank"]] = hello, link
    return links, [hellos[rank] for rank in range(size)]


def _listening(address: str, backlog: int) -> socket.socket:
    """Return a server at this machine's loopback if that is the address of rank 0; else at all of its networks."""
    if address in {"127.0.0.1", "localhost"}:
        return socket.create_server(("127.0.0.1", 0), backlog=backlog)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=backlog, dualstack_ipv6=both)


def _first_problem(hellos: Sequence[Mapping[str, Any]]) -> Problem | None:
    """Return the first problem of a rank, which is named unless all have it; else the first difference to rank 0."""
    refused = next((hello for hello in hellos if hello["problem"]), None)
    if refused:
        what, where, fix = refused["problem"]
        if any(tuple(hello["problem"] or ()) != (what, where, fix) for hello in hellos):  # JSON makes lists of tuples
            what = f"rank {refused['rank']} on {refused['host']} cannot start: {what}"
        return what, where, fix
    for hello in hellos:
        for name, value in hello["facts"].items():
            if value != (first := hellos[0]["facts"][name]):
                what = f"rank {hello['rank']} on {hello['host']} has {name} {value}, and rank 0 has {first}"
                return what, f"{len(hellos)} processes", "start the same command on every host"
    return None


class Watch:
    """Thread that listens to other ranks until this rank leaves or another rank is lost.

    Args:
        rank: Rank of this process; the thread that computes is the thread that creates the object.
        hosts: Name of each rank's host.
        links: Rank -> connection: of rank 0 to all others, of another rank to rank 0.
        timeout_s: Time after which a silent rank counts as lost, seconds.
        opened: The connections, which are closed when this rank leaves.
    """

    def __init__(
        self, rank: int, hosts: Sequence[str], links: dict[int, Link], timeout_s: int, opened: ExitStack
    ) -> None:
        self.rank, self.hosts, self.links, self.timeout_s = rank, hosts, links, timeout_s
        self.lost: RankError | None = None
        self._opened = opened
        self._computing, self._lock = threading.get_ident(), threading.Lock()
        self._known, self._left = threading.Event(), threading.Event()
        self._beaten = time.monotonic()
        self._heard = dict.fromkeys(links, self._beaten)
        self._signal: int | None = None
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        if threading.current_thread() is threading.main_thread():  # where Python allows it
            signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)
        self._thread.start()

    @contextmanager
    def over(self) -> Iterator[None]:
        """Raise a `RankError` in place of a failed collective's error, and send the other ranks how this rank ends.

        Raises:
            RankError: Another rank has stopped.
        """
        try:
            try:
                yield
            finally:
                self._hold()
        except BaseException as error:
            explained = self._explained(error)
            self._leave(explained)
            if explained is error:
                raise
            raise explained from error
        self._leave(None)

    def _explained(self, error: BaseException) -> BaseException:
        """Return the error that the user sees in place of another error; the same unless a rank is lost."""
        self._hold()
        if not isinstance(error, RankLost | dist.DistError) and not (
            isinstance(error, RuntimeError) and "gloo/" in str(error)
        ):
            return error
        if self._known.wait(self.timeout_s) and self.lost:
            return self.lost
        return RankError(
            "an exchange with another rank has failed or has taken too long, but no rank has stopped",
            where=self._name(self.rank),
            fix="raise execution.timeout_s if ranks differ much in speed; or check the network between the hosts",
        )

    def _hold(self) -> None:
        """Raise nothing more in the computing thread."""
        with self._lock:
            self._left.set()
            _raise_in(self._computing, None)

    def _leave(self, error: BaseException | None) -> None:
        """End the thread, and send the other ranks the reason why this rank ends."""
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
        self._wake.close()
        self._thread.join()
        self._woken.close()
        with self._opened:
            for link in self.links.values():
                link.send({"rank": self.rank, "problem": error and _problem(error)})
            until = time.monotonic() + _PERIOD
            for link in self.links.values():
                link.end(until)

    def _run(self) -> None:
        news = self._listen()
        if news is not None:
            for link in self.links.values():
                link.send(news)
            what, where, fix = news["problem"]
            lost = RankError(f"{self._name(news['rank'])} has stopped: {what}", where=where, fix=fix)
            if "died" in news and self._stop_signal() is None:  # a launcher may end this process before it unwinds
                print(f"error: {lost}", file=sys.stderr, flush=True)
                lost.said = True
            self.lost = lost
        self._known.set()
        if self.lost is None or self._left.wait(_GRACE):
            return
        stop = self._stop_signal()
        with self._lock:
            if not self._left.is_set() and stop is None:  # else it would be raised within the signal's handler
                _raise_in(self._computing, RankLost)
        if not self._left.wait(_LAST):
            if stop or not self.lost.said:
                print(stop or f"error: {self.lost}", file=sys.stderr, flush=True)
            os._exit(stop.exit_code if stop else 2)

    def _listen(self) -> News | None:
        """Return the news of a rank that is lost; None if this rank leaves first, or all others have finished."""
        period, due = min(_PERIOD, self.timeout_s / 4), 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for rank, link in self.links.items():
                link.connection.setblocking(False)
                selector.register(link.connection, selectors.EVENT_READ, rank)
            while self._heard:
                for key, _ in selector.select(max(0.0, due - time.monotonic())):
                    if key.data is None:
                        self._stop_signal()
                        if self._left.is_set():
                            return None
                        continue
                    news = self._read(key.data)
                    if news and news["problem"]:
                        return news
                    if news:
                        selector.unregister(key.fileobj)
                        del self._heard[key.data]
                if time.monotonic() >= due:
                    due = time.monotonic() + period
                    if news := self._beat():
                        return news
        return None

    def _stop_signal(self) -> StopSignal | None:
        """Return the signal that this process has received; Python writes its number, also during a collective."""
        with suppress(BlockingIOError):
            for number in self._woken.recv(MAX_MESSAGE):
                self._signal = number if number in STOPPING else self._signal
        return None if self._signal is None else StopSignal(self._signal)

    def _read(self, rank: int) -> News | None:
        """Return the news of a rank that sends some or has died; None for a sign of life."""
        self._heard[rank] = time.monotonic()
        messages = self.links[rank].messages()
        if messages is None:
            return self._lost(rank, "its process has ended")
        return messages[0] if messages else None

    def _beat(self) -> News | None:
        """Send a sign of life; return the news of a rank that has been silent for too long."""
        before, self._beaten = self._beaten, time.monotonic()
        if self._beaten - before > self.timeout_s / 2:  # this process itself was frozen, so that it heard nobody
            self._heard = dict.fromkeys(self._heard, self._beaten)
        for rank, moment in self._heard.items():
            if self._beaten - moment > self.timeout_s:
                return self._lost(rank, f"it has not answered for {self.timeout_s} s")
            self.links[rank].send()
        return None

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts[rank]}"

    def _lost(self, rank: int, what: str) -> News:
        fix = "look for the reason in its output or in its host's log; then run the same command again"
        return {"rank": rank, "problem": (what, f"host {self.hosts[rank]}", fix), "died": True}


def _problem(error: BaseException) -> Problem:
    """Return the part of an error that the other ranks get."""
    if isinstance(error, PipelineError):
        return error.what, str(error.where), error.fix
    what = str(error) if isinstance(error, StopSignal) else f"{type(error).__name__}: {error}"
    return what, f"host {socket.gethostname()}", "look for its message in that rank's output"


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an exception in a thread at its next step in Python; None withdraws an exception not yet raised."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error and ctypes.py_object(error))
