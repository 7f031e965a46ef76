"""Verbs in several processes that a launcher starts: on two hosts, with bad input, and when one of them stops."""

import ctypes
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from longvit.cli import app
from longvit.config import EmbeddingInput, ExecutionConfig
from longvit.encoding import encode
from longvit.model import LongViT, save_encoder
from longvit.prediction.ensemble import Ensemble
from longvit.training import liveness
from preprocessing.store.features import add_embeddings
from preprocessing.store.store import open_store

CLONE_NEWUTS, CLONE_NEWNET = 0x04000000, 0x40000000
PATIENCE = 60
"""Longest time that a test waits for a process, seconds."""
TWO = ["--sequence-parallel", "2"]
TIMEOUT = ["--execution.timeout-s", "5"]
FOUR = ["--sequence-parallel", "4"]
TOO_LONG = "an exchange with another rank has failed or has taken too long, but no rank has stopped"


class Host(NamedTuple):
    """A network namespace."""

    name: str
    namespace: str | None
    address: str
    interface: str


HERE = Host(socket.gethostname(), None, "127.0.0.1", "lo")


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that are joined by a cable, each with one address."""
    tag = f"lv{os.getpid() % 100000}"
    both = [Host(name, f"{tag}{name}", f"10.213.0.{i}", f"{tag}{name}") for i, name in enumerate("ab", 1)]
    commands = [f"ip netns add {host.namespace}" for host in both]
    commands.append(f"ip link add {both[0].interface} type veth peer name {both[1].interface}")
    for host in both:
        commands.append(f"ip link set {host.interface} netns {host.namespace}")
        commands.append(f"ip -n {host.namespace} addr add {host.address}/24 dev {host.interface}")
        commands += [f"ip -n {host.namespace} link set {name} up" for name in (host.interface, "lo")]
    try:
        for command in commands:
            if shutil.which("ip") is None:
                pytest.skip("this machine has no `ip`")
            made = subprocess.run(command.split(), capture_output=True, check=False)
            if made.returncode:
                pytest.skip(f"this machine cannot make hosts: {command}: {made.stderr.decode().strip()}")
        yield both[0], both[1]
    finally:
        for host in both:
            subprocess.run(["ip", "netns", "del", str(host.namespace)], capture_output=True, check=False)


@dataclass
class Ranks:
    """Processes that are forked from this one, with the environment that torchrun would give them.

    Args:
        arguments: Command line of every rank.
        folder: Receives what each rank prints, and the mark that it has stopped.
        hosts: Host of each rank.
        prepare: Called with this object and the rank in each process, before its command.
        missing: Ranks that are not started.
    """

    arguments: Sequence[Sequence[str]]
    folder: Path
    hosts: Sequence[Host]
    prepare: "Callable[[Ranks, int], object]" = lambda ranks, rank: None
    missing: Sequence[int] = ()
    processes: dict[int, multiprocessing.Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        for rank in range(len(self.hosts)):
            if rank not in self.missing:
                process = multiprocessing.get_context("fork").Process(target=self._run, args=(rank, port))
                process.start()
                self.processes[rank] = process

    def _run(self, rank: int, port: int) -> None:
        host, first = self.hosts[rank], self.hosts[0]
        sys.stdout = sys.stderr = open(self.folder / f"said_{rank}", "w")  # noqa: SIM115 - until this process ends
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        if host.namespace is not None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{host.namespace}") as namespace:
                assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0, ctypes.get_errno()
            assert libc.unshare(CLONE_NEWUTS) == 0, ctypes.get_errno()
            socket.sethostname(host.name)
        local = [other for other in self.hosts[:rank] if other == host]
        os.environ |= {"TORCHELASTIC_RUN_ID": "1", "RANK": str(rank), "LOCAL_RANK": str(len(local))}
        os.environ |= {"WORLD_SIZE": str(len(self.hosts)), "MASTER_ADDR": first.address, "MASTER_PORT": str(port)}
        os.environ |= {"GLOO_SOCKET_IFNAME": host.interface}
        app._FIRST = rank == 0
        liveness._GRACE, liveness._LAST = 1.0, 2
        self.prepare(self, rank)
        sys.argv = ["longvit", *self.arguments[rank]]
        app.main()

    def said(self, rank: int) -> str:
        return (self.folder / f"said_{rank}").read_text()

    def wait_until_held(self, *ranks: int) -> None:
        """Wait until ranks are in the midst of their work (`hold`)."""
        deadline = time.monotonic() + PATIENCE
        while not all((self.folder / f"held_{rank}").exists() for rank in ranks):
            assert all(self.processes[rank].is_alive() for rank in ranks), [self.said(rank) for rank in ranks]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def hold(self, rank: int, call: int, owner: object, name: str) -> None:
        """Let a call of a function in this process wait."""
        function, calls = getattr(owner, name), []

        def waiting(*args: object, **kwargs: object) -> object:
            calls.append(1)
            if len(calls) == call:
                (self.folder / f"held_{rank}").touch()
                for _ in range(10 * PATIENCE):
                    time.sleep(0.1)
            return function(*args, **kwargs)

        setattr(owner, name, waiting)

    def kill(self, number: int, *ranks: int) -> None:
        for rank in ranks or self.processes:
            os.kill(self.processes[rank].pid or 0, number)

    def codes(self) -> list[int | None]:
        """Wait until all processes have ended, and return their exit codes."""
        for process in self.processes.values():
            process.join(PATIENCE)
        return [process.exitcode for process in self.processes.values()]

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.join()


def changed(command: list[str], flags: list[str]) -> list[str]:
    """Return a command line with other values of flags."""
    command = list(command)
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        at = command.index(flag) if flag in command else len(command)
        command[at : at + 2] = [flag, value]
    return command


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Ranks]]:
    """(command of all ranks, number or hosts of the ranks, ...) -> the processes; `more` has what single ranks add."""
    started: list[Ranks] = []

    def start_(
        command: list[str], where: int | Sequence[Host] = 2, more: dict[int, list[str]] | None = None, **kw: object
    ) -> Ranks:
        hosts = [HERE] * where if isinstance(where, int) else where
        arguments = [changed(command, (more or {}).get(rank, [])) for rank in range(len(hosts))]
        started.append(Ranks(arguments, tmp_path / f"ranks_{len(started)}", hosts, **kw))
        return started[-1]

    yield start_
    for ranks in started:
        ranks.end()


def slow(call: int, *which: int, owner: object = encode, name: str = "encode_slide") -> Callable[[Ranks, int], object]:
    """A preparation: the given ranks wait in a call of a function."""
    return lambda ranks, rank: ranks.hold(rank, call, owner, name) if rank in which else None


def vectors(folder: Path) -> np.ndarray:
    return pd.read_csv(folder / "representations.csv", index_col="slide_id").to_numpy()


def remains(folder: Path) -> list[str]:
    """Return what a run has left that is neither a result nor a record."""
    return [path.name for path in folder.rglob(".*")]


def test_two_hosts_give_the_vectors_of_one_process_also_after_one_rank_is_killed(lab, hosts, start):
    a, b = hosts
    assert lab.run("encode", out=lab.root / "alone") == 0
    assert start(lab.command("encode", lab.root / "four") + FOUR, [a, a, b, b]).codes() == [0] * 4
    np.testing.assert_allclose(vectors(lab.root / "four"), vectors(lab.root / "alone"), rtol=1e-4, atol=1e-5)

    out = lab.root / "killed"
    command = lab.command("encode", out) + FOUR
    ranks = start(command, [a, a, b, b], prepare=slow(4, 2))
    ranks.wait_until_held(2)
    begun = time.monotonic()
    ranks.kill(signal.SIGKILL, 2)
    assert ranks.codes() == [2, 2, -signal.SIGKILL, 2]
    assert time.monotonic() - begun < 20
    for rank in (0, 1, 3):
        assert ranks.said(rank).count("error: ") == 1
        assert "error: rank 2 on b has stopped: its process has ended\n" in ranks.said(rank)
    assert remains(out) == []
    assert len(list((out / "slides").iterdir())) == 3
    assert start(command, [a, a, b, b]).codes() == [0] * 4
    for name in ("representations.csv", "slides/P09-0.safetensors"):
        assert (out / name).read_bytes() == (lab.root / "four" / name).read_bytes()


def test_hosts_that_gloo_cannot_connect_are_refused_by_every_rank(lab, hosts, start):
    ranks = start(
        [*lab.command("encode"), *TWO, *TIMEOUT], hosts, prepare=lambda *_: os.environ.pop("GLOO_SOCKET_IFNAME")
    )
    assert ranks.codes() == [2, 2]
    for rank in (0, 1):
        assert "cannot exchange data with all 2 ranks\n" in ranks.said(rank)
        assert "GLOO_SOCKET_IFNAME" in ranks.said(rank)
        assert "Traceback" not in ranks.said(rank)
    assert not (lab.root / "encode").exists()


def test_slurm_starts_the_same_ranks(lab, start):
    def as_slurm(ranks: Ranks, rank: int) -> None:
        del os.environ["TORCHELASTIC_RUN_ID"], os.environ["MASTER_ADDR"]
        os.environ |= {"SLURM_NTASKS": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        os.environ |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "encode", "SLURM_NODELIST": "localhost"}
        os.environ["SLURM_NTASKS_PER_NODE"] = "2"

    assert lab.run("encode", out=lab.root / "alone") == 0
    assert start([*lab.command("encode"), *TWO], prepare=as_slurm).codes() == [0, 0]
    np.testing.assert_allclose(vectors(lab.root / "encode"), vectors(lab.root / "alone"), rtol=1e-4, atol=1e-5)


def test_a_host_that_vanishes_ends_the_ranks_of_both(lab, hosts, start):
    a, b = hosts
    ranks = start(lab.command("encode") + FOUR + TIMEOUT, [a, a, b, b], prepare=slow(4, 3))
    ranks.wait_until_held(3)
    begun = time.monotonic()
    subprocess.run(["ip", "-n", str(b.namespace), "link", "set", b.interface, "down"], check=True)
    assert ranks.codes() == [2] * 4
    assert time.monotonic() - begun < 30
    for rank, names in enumerate([("2 on b", "3 on b")] * 2 + [("0 on a",)] * 2):
        lines = [f"error: rank {name} has stopped: it has not answered for 5 s\n" for name in names]
        assert any(line in ranks.said(rank) for line in lines), ranks.said(rank)
    assert start(lab.command("encode"), 1).codes() == [0]
    assert remains(lab.root / "encode") == []


def test_a_frozen_rank_ends_the_others_and_itself_when_it_thaws(lab, start):
    ranks = start(lab.command("encode") + FOUR + TIMEOUT, 4, prepare=slow(4, 1, 3))
    ranks.wait_until_held(1, 3)
    ranks.kill(signal.SIGSTOP, 1)
    frozen = ranks.processes.pop(1)
    assert ranks.codes() == [2] * 3
    for rank in ranks.processes:
        assert f"error: rank 1 on {HERE.name} has stopped: it has not answered for 5 s\n" in ranks.said(rank)
    ranks.processes = {1: frozen}
    ranks.kill(signal.SIGCONT)
    assert ranks.codes() == [2]


def test_a_rank_that_is_alive_but_hangs_ends_the_others_within_the_timeout(lab, start):
    ranks = start([*lab.command("encode"), *TWO, "--execution.timeout-s", "2"], prepare=slow(4, 1))
    ranks.wait_until_held(1)
    begun = time.monotonic()
    assert ranks.codes() == [2, 2]
    assert time.monotonic() - begun < 15
    assert f"error: {TOO_LONG}\n" in ranks.said(0)
    assert f"error: rank 0 on {HERE.name} has stopped: {TOO_LONG}\n" in ranks.said(1)


def test_ranks_that_compute_different_slides_end_as_well(lab, start):
    ranks = start(lab.command("encode"), 3, prepare=slow(2, 1, 2))
    ranks.wait_until_held(1, 2)
    ranks.kill(signal.SIGKILL, 0)
    assert ranks.codes() == [-signal.SIGKILL, 2, 2]
    for rank in (1, 2):
        assert f"error: rank 0 on {HERE.name} has stopped: its process has ended\n" in ranks.said(rank)


def test_predictions_are_those_of_one_process_also_after_one_rank_is_killed(trained, start):
    assert trained.run("predict", out=trained.root / "alone") == 0
    command = [*trained.command("predict"), *TWO]
    ranks = start(command, prepare=slow(2, 1, owner=Ensemble, name="predict"))
    ranks.wait_until_held(1)
    ranks.kill(signal.SIGKILL, 1)
    assert ranks.codes() == [2, -signal.SIGKILL]
    assert f"error: rank 1 on {HERE.name} has stopped: its process has ended\n" in ranks.said(0)
    tables = [pd.read_csv(trained.root / name / "predictions.csv") for name in ("alone", "predict")]
    assert [len(table) for table in tables] == [2, 1]
    assert start(command).codes() == [0, 0]
    alone, two = (pd.read_csv(trained.root / name / "predictions.csv") for name in ("alone", "predict"))
    pd.testing.assert_frame_equal(two, alone, rtol=1e-4, atol=1e-5)


def test_a_signal_ends_every_rank_with_its_exit_code_and_frees_the_folder(lab, start):
    for number, code in {signal.SIGINT: 130, signal.SIGTERM: 143}.items():
        ranks = start(lab.command("encode") + FOUR, 4, prepare=slow(2, 1))
        ranks.wait_until_held(1)
        second = start([*lab.command("encode"), *TWO])
        assert second.codes() == [2, 2]
        for rank in (0, 1):
            assert "error: another process is writing here\n" in second.said(rank)
        ranks.kill(number)
        assert ranks.codes() == [code] * 4
        for rank in range(4):
            assert f"interrupted ({number.name})" in ranks.said(rank)
        assert remains(lab.root / "encode") == []


def test_a_signal_to_one_rank_ends_the_others_with_its_sentence(lab, start):
    ranks = start(lab.command("encode") + FOUR, 4, prepare=slow(2, 1))
    ranks.wait_until_held(1)
    ranks.kill(signal.SIGTERM, 1)
    assert ranks.codes() == [2, 143, 2, 2]
    assert f"error: rank 1 on {HERE.name} has stopped: interrupted (SIGTERM)" in ranks.said(3)


def test_the_loss_of_a_rank_is_printed_before_a_launcher_stops_the_others(lab, start):
    """As torchrun does at once, while the others have not noticed by themselves."""

    def prepare(ranks: Ranks, rank: int) -> None:
        liveness._GRACE = 2.0 * PATIENCE
        slow(2, 0, 1)(ranks, rank)

    ranks = start(lab.command("encode"), prepare=prepare)
    ranks.wait_until_held(0, 1)
    ranks.kill(signal.SIGKILL, 1)
    sentence, deadline = (
        f"error: rank 1 on {HERE.name} has stopped: its process has ended\n",
        time.monotonic() + PATIENCE,
    )
    while sentence not in ranks.said(0):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ranks.kill(signal.SIGTERM, 0)
    assert ranks.codes() == [143, -signal.SIGKILL]
    assert ranks.said(0).count(sentence) == 1


def with_gpus(count: int, *which: int) -> Callable[[Ranks, int], object]:
    """A preparation: torch finds so many GPUs, on the given ranks."""

    def prepare(ranks: Ranks, rank: int) -> None:
        if rank in which:
            torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: count
            torch.cuda.set_device = lambda device: None

    return prepare


AUTO = [*TWO, "--device", "auto"]
REFUSED = {
    "mesh that does not divide": ({0: FOUR, 1: FOUR}, {}, "error: 4 ranks per sequence do not divide 2 processes"),
    "no GPU for the second": ({0: AUTO, 1: AUTO}, {"prepare": with_gpus(1, 0, 1)}, "has no GPU: the host has 1"),
    "GPU on one of two": ({0: AUTO, 1: AUTO}, {"prepare": with_gpus(1, 0)}, "has device cpu, and rank 0 has cuda"),
    "nobody answers the first": ({0: TWO}, {"missing": [1]}, "rank 0 cannot find all 2 ranks"),
    "nobody answers the second": ({1: TWO}, {"missing": [0]}, "rank 1 cannot find all 2 ranks"),
    "other meshes": ({0: TWO}, {}, "has execution.sequence_parallel 1, and rank 0 has 2"),
    "fewer machines than named": (
        {rank: [*TWO, "--nodes", "2"] for rank in (0, 1)},
        {},
        r"1 x 2 processes were started \(machines x devices\), but the settings name 2 x 1",
    ),
    "other settings": ({0: TWO, 1: [*TWO, "--precision", "bf16"]}, {}, "rank 1 has settings, slides or weights that"),
    "other stores": ({0: TWO, 1: [*TWO, "--stores", "new"]}, {}, "rank 1 has settings, slides or weights that differ"),
    "other weights": (
        {0: TWO, 1: [*TWO, "--checkpoint", "other.safetensors"]},
        {},
        "weights that differ from those of",
    ),
    "no such file on one": (
        {0: TWO, 1: [*TWO, "--checkpoint", "gone"]},
        {},
        f"rank 1 on {HERE.name} cannot start: the checkpoint does not exist\n  where: .*/gone\n",
    ),
    "no stores on the first": (
        {0: [*TWO, "--stores", "empty"], 1: TWO},
        {},
        f"rank 0 on {HERE.name} cannot start: there are no stores\n  where: .*/empty\n",
    ),
    "no settings on one": (
        {0: TWO, 1: [*TWO, "--config", "gone.yaml"]},
        {},
        f"rank 1 on {HERE.name} cannot start: the settings file does not exist\n  where: .*/gone.yaml\n",
    ),
    "bad settings on one": (
        {0: TWO, 1: [*TWO, "--config", "bad.yaml"]},
        {},
        f"rank 1 on {HERE.name} cannot start: .*precision",
    ),
    "unknown flag on the first": (
        {0: [*TWO, "--presision", "32"], 1: TWO},
        {},
        f"rank 0 on {HERE.name} cannot start: there is no setting --presision",
    ),
    "mesh that does not divide on one": (
        {0: TWO, 1: ["--sequence-parallel", "3"]},
        {},
        f"rank 1 on {HERE.name} cannot start: 3 ranks per sequence do not divide 2 processes",
    ),
    "other model on one": (
        {0: TWO, 1: [*TWO, "--checkpoint", "features.safetensors"]},
        {},
        "no embeddings named 'uni'",
    ),
}


@pytest.mark.parametrize(("more", "how", "what"), REFUSED.values(), ids=REFUSED)
def test_is_refused_by_every_rank_with_one_sentence_before_anything_is_written(
    more, how, what, lab, start, monkeypatch, tiny_encoder
):
    monkeypatch.chdir(lab.root)
    (lab.root / "empty").mkdir()
    (lab.root / "bad.yaml").write_text("precision: double\n")
    save_encoder(lab.root / "other.safetensors", LongViT(tiny_encoder))
    features = tiny_encoder.model_copy(update={"input": EmbeddingInput(encoder="uni", dim=6)})
    save_encoder(lab.root / "features.safetensors", LongViT(features))
    ranks = start([*lab.command("encode"), "--execution.timeout-s", "2"], 2, more, **how)
    codes = ranks.codes()
    said = {rank: ranks.said(rank) for rank in ranks.processes}
    assert codes == [2] * len(codes), said
    for text in said.values():
        assert text.count("error: ") == 1
        assert re.search(what, text)
        assert "Traceback" not in text
    assert not (lab.root / "encode").exists()


def test_a_slide_with_fewer_tokens_than_ranks_is_refused_by_every_rank(lab, start, save_store, tiny_encoder):
    features = tiny_encoder.model_copy(update={"input": EmbeddingInput(encoder="uni", dim=6)})
    save_encoder(lab.encoder, LongViT(features))
    shutil.rmtree(lab.stores)
    lab.stores.mkdir()
    for name, tiles in {"long": 3, "short": 1}.items():
        store = save_store(name, [[0, column] for column in range(tiles)]).path
        add_embeddings(store, "uni", np.ones((tiles, 6), np.float32), {})
        store.rename(lab.stores / store.name)
    ranks = start([*lab.command("encode"), *TWO])
    assert ranks.codes() == [2, 2]
    for rank in (0, 1):
        assert "error: 1 of 2 sequences have too few tokens for 2 ranks: short\n" in ranks.said(rank)
        assert "fix:   lower it to at most 1, or leave these slides out\n" in ranks.said(rank)
    assert not (lab.root / "encode").exists()


def test_a_new_slide_with_fewer_tokens_than_ranks_is_refused_by_every_rank(lab, start, save_store, tiny_encoder):
    features = tiny_encoder.model_copy(update={"input": EmbeddingInput(encoder="uni", dim=6)})
    save_encoder(lab.encoder, LongViT(features))
    save_store("short", [[0, 0]]).path.rename(lab.root / "new" / "short.zarr")
    for store in [*lab.stores.glob("*.zarr"), *(lab.root / "new").glob("*.zarr")]:
        add_embeddings(store, "uni", np.ones((len(open_store(store)), 6), np.float32), {})
    assert lab.run("finetune") == 0
    ranks = start([*lab.command("predict"), *TWO])
    assert ranks.codes() == [2, 2]
    for rank in (0, 1):
        assert "sequences have too few tokens for 2 ranks: short\n" in ranks.said(rank)
    assert not (lab.root / "predict").exists()


def test_bad_input_of_one_rank_ends_all_ranks_long_before_the_time_to_wait_for_others(lab, start):
    begun = time.monotonic()
    ranks = start(lab.command("encode") + FOUR, 4, {2: ["--stores", str(lab.root / "gone")]})
    assert ranks.codes() == [2] * 4
    assert time.monotonic() - begun < 30 < ExecutionConfig().timeout_s
    for rank in range(4):
        assert f"error: rank 2 on {HERE.name} cannot start: the store or folder of stores does" in ranks.said(rank)


def test_a_single_process_that_slurm_or_torchrun_has_started_waits_for_no_others(lab, start):
    ranks = start([*lab.command("encode"), "--no-such-setting"], 1)
    assert ranks.codes() == [2]
    assert "cannot start: there is no setting --no-such-setting\n" in ranks.said(0)
    ranks = start(["evaluate", "gone"])  # a verb without a mesh
    assert ranks.codes() == [2, 2]
    assert ranks.said(1).startswith("error: the file of predictions does not exist")


@pytest.mark.slow
@pytest.mark.parametrize("bad", [0, 1])
def test_torchrun_ends_with_one_sentence_of_each_rank_if_one_lacks_its_input(bad, lab):
    (lab.root / "other").mkdir()
    (lab.root / "run.py").write_text(
        f"import os\nfrom longvit.cli.app import main\nif os.environ['RANK'] == '{bad}': os.chdir('other')\nmain()\n"
    )
    launch = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 run.py encode --stores stores"
    done = subprocess.run(
        [*launch.split(), *lab.command("encode")[3:], *TWO],
        cwd=lab.root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    what = f"rank {bad} on {HERE.name} cannot start: the store or folder of stores does not exist"
    said = re.findall(r"error: (.*)\n  where: (.*)\n", done.stderr)
    assert said == [(what, str(lab.root / "other" / "stores"))] * 2
    assert re.findall(r"\n +exitcode +: (\d+)", done.stderr) == ["2", "2"]


@pytest.mark.slow
def test_torchrun_on_two_hosts_gives_the_vectors_of_one_process_and_its_ranks_name_a_dead_host(lab, hosts):
    assert lab.run("encode", out=lab.root / "alone") == 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}

    def torchrun(node: int, out: Path) -> subprocess.Popen[str]:
        host = hosts[node]
        launch = f"ip netns exec {host.namespace} {sys.executable} -m torch.distributed.run --nnodes 2"
        launch += f" --node-rank {node} --nproc-per-node 2 --master-addr {hosts[0].address} --master-port 29400 -m --"
        command = [*launch.split(), "longvit", *lab.command("encode", out), *FOUR]
        with open(lab.root / f"{out.name}_{node}.txt", "w") as said:
            own = environment | {"GLOO_SOCKET_IFNAME": host.interface}
            return subprocess.Popen(command, stdout=said, stderr=said, text=True, env=own)

    agents = [torchrun(node, lab.root / "four") for node in (0, 1)]
    assert [agent.wait(300) for agent in agents] == [0, 0]
    np.testing.assert_allclose(vectors(lab.root / "four"), vectors(lab.root / "alone"), rtol=1e-4, atol=1e-5)

    agents = [torchrun(node, lab.root / "killed") for node in (0, 1)]
    deadline = time.monotonic() + 300
    while not (lab.root / "killed" / "run.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ranks = psutil.Process(agents[1].pid).children(recursive=True)
    for process in ranks:
        process.kill()
    assert [agent.wait(60) for agent in agents] == [1, 1]
    assert re.search(
        r"error: rank [23] on \S+ has stopped: its process has ended", (lab.root / "killed_0.txt").read_text()
    )
    assert remains(lab.root / "killed") == []
