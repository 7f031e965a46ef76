import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from longvit.training import liveness
from longvit.training.liveness import Watch, _listening, meet
from preprocessing.errors import ConfigError, PipelineError, RankError, StoreError
from preprocessing.jobs.signals import StopSignal

HOST = socket.gethostname()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(liveness, "_GRACE", 0.2)
    monkeypatch.setenv("MASTER_ADDR", "localhost")


@pytest.fixture
def together() -> Iterator[Callable[..., list[object]]]:
    """A function: run a function of (watch, rank) in a thread per rank; return its result or error on each rank."""
    with ThreadPoolExecutor(4) as pool:

        def run(
            of_ranks: list[Callable[[Watch], object]], facts=({}, {}, {}, {}), problems=(None,) * 4, timeout_s: int = 5
        ) -> list[object]:
            store, size = HashStore(), len(of_ranks)

            def one(rank: int) -> object:
                given = {"facts": facts[rank], "problem": problems[rank], "timeout_s": timeout_s}
                try:
                    watch = meet(store, rank, size, **given)
                    with watch.over():
                        return of_ranks[rank](watch)
                except BaseException as error:
                    return error

            return list(pool.map(one, range(size)))

        yield run


def fail(error: BaseException) -> Callable[[Watch], object]:
    def raising(watch: Watch) -> None:
        raise error

    return raising


def compute(watch: Watch, seconds: float = 5) -> str:
    for _ in range(round(100 * seconds)):
        time.sleep(0.01)
    return "computed"


def collective(watch: Watch) -> None:
    """Fail as gloo does when the connection to another rank is lost."""
    raise RuntimeError("[/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:932")


def test_ranks_that_finish_one_after_another_are_no_loss(together):
    assert together([lambda watch: time.sleep(0.1 * watch.rank) or watch.rank for _ in range(4)]) == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [0, 2])
def test_the_error_of_one_rank_ends_those_that_compute_and_those_whose_collective_fails(first, together):
    error = StoreError("the tile is damaged", where="a.zarr", fix="tile it again")
    work = [compute, compute, compute, collective]
    work[first] = fail(error)
    found = together(work)
    assert found[first] is error
    for other in found[:first] + found[first + 1 :]:
        assert type(other) is RankError
        assert other.what == f"rank {first} on {HOST} has stopped: the tile is damaged"
        assert (other.where, other.fix) == ("a.zarr", "tile it again")


def test_an_error_of_the_program_is_not_hidden_and_is_named_to_others(together):
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    found = together([compute, fail(error)])
    assert found[1] is error
    assert isinstance(found[0], RankError)
    assert found[0].what == f"rank 1 on {HOST} has stopped: RuntimeError: {error}"
    assert isinstance(together([fail(StopSignal(15)), compute])[1], RankError)


def test_a_collective_that_fails_while_all_ranks_are_alive_is_one_sentence(together):
    found = together([compute, collective], timeout_s=1)
    assert isinstance(found[1], RankError)
    assert found[1].what.endswith("but no rank has stopped")
    assert found[1].where == f"rank 1 on {HOST}"
    assert isinstance(found[0], RankError)


def test_a_silent_rank_is_lost_and_one_that_computes_is_not(together, monkeypatch):
    beat = Watch._beat
    monkeypatch.setattr(Watch, "_beat", lambda watch: None if watch.rank == 2 else beat(watch))
    found = together([compute] * 3, timeout_s=1)
    assert [str(error).split("\n")[0] for error in found[:2]] == [
        f"rank 2 on {HOST} has stopped: it has not answered for 1 s"
    ] * 2


def test_a_process_that_was_frozen_itself_does_not_call_the_others_lost(together):
    def frozen(watch: Watch) -> None:
        watch._beaten -= 60
        watch._heard = dict.fromkeys(watch._heard, time.monotonic() - 60)
        time.sleep(0.6)  # longer than to the next sign of life

    assert together([lambda watch: time.sleep(0.6), frozen], timeout_s=1) == [None, None]


def test_a_problem_of_one_rank_or_another_fact_is_raised_on_every_rank(together):
    none = [compute] * 3
    problem = ["there is no device", "device", "use another"]
    for errors, what in (
        (together(none, problems=[problem] * 3), "there is no device"),
        (together(none, problems=[None, None, problem]), f"rank 2 on {HOST} cannot start: there is no device"),
        (together(none, facts=[{"size": 2}, {"size": 2}, {"size": 3}]), f"rank 2 on {HOST} has size 3, and rank 0 has"),
    ):
        assert [type(error) for error in errors] == [ConfigError] * 3
        assert all(isinstance(error, PipelineError) and error.what.startswith(what) for error in errors)


def test_strangers_at_the_port_are_left_aside(monkeypatch):
    store = HashStore()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, store, 0, 2, facts={}, problem=None, timeout_s=5)
        address = ("localhost", int(store.get(liveness._PORT)))
        for message in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
            b'{"rank": 7}\n',
            b'["rank"]\n',
            b"{}\n",
            b"\n",
            bytes(1 << 17),
        ):
            with socket.create_connection(address) as stranger:
                stranger.sendall(message)
        second = pool.submit(meet, store, 1, 2, facts={}, problem=None, timeout_s=5)
        for watch in (first.result(), second.result()):
            with watch.over():
                assert watch.hosts == [HOST, HOST]


def test_no_thread_and_no_connection_stay(together):
    before = len(os.listdir("/proc/self/fd"))
    together([lambda watch: None] * 3)
    assert [thread for thread in threading.enumerate() if thread.name == "liveness"] == []
    assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1")])
def test_ranks_of_one_machine_listen_at_its_loopback_alone(address, host):
    with _listening(address, 2) as server:
        assert server.getsockname()[0] == host
    with _listening("10.0.0.1", 2) as server:
        assert server.getsockname()[0] in {"::", "0.0.0.0"}


def test_a_rank_that_has_received_a_signal_is_told_of_no_loss(together, monkeypatch):
    """As in a collective, the computing thread sees the signal only when the loss is known, and the grace is over."""
    monkeypatch.setattr(liveness, "_GRACE", 0.0)

    def signalled(watch: Watch) -> None:
        watch._wake.send(bytes([signal.SIGTERM]))
        watch._known.wait(5)
        compute(watch, 0.3)
        raise StopSignal(signal.SIGTERM)

    stopped, failed = together([signalled, fail(StoreError("the tile is damaged", where="a.zarr", fix="tile again"))])
    assert isinstance(stopped, StopSignal)
    assert isinstance(failed, StoreError)
