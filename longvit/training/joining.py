"""Joining of the processes that a launcher has started, from its environment to torch's process group."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from longvit.config import Device
from longvit.training.liveness import Problem, Watch, meet
from preprocessing.errors import ConfigError

_LAUNCHERS: tuple[type[ClusterEnvironment], ...] = (TorchElasticEnvironment, SLURMEnvironment)
_REFUSAL_S = 60
"""Time to wait for other ranks that must learn of a refusal, seconds."""


def find_launcher() -> ClusterEnvironment | None:
    """Return the launcher that has started this process; None if there is none.

    Raises:
        ConfigError: Lightning does not support the settings of the Slurm job.
    """
    try:
        return next((kind() for kind in _LAUNCHERS if kind.detect()), None)
    except RuntimeError as error:  # a job that asks for --ntasks
        what = "Slurm has started this process in a job with --ntasks and without --ntasks-per-node"
        raise ConfigError(what, where="SLURM_NTASKS", fix="ask for --nodes and --ntasks-per-node instead") from error


def device_kind(local: int, device: Device, *, trains: bool) -> tuple[str, Problem | None]:
    """Return the type of this process's device, and the reason if it has none.

    Args:
        local: Number of the process on its host.
        device: Device of the settings.
        trains: Whether processes exchange gradients, for which MPS devices have no collective operations.
    """
    if trains and (device == "mps" or (device == "auto" and torch.backends.mps.is_available())):
        return "cpu", ("several processes cannot train on MPS", "device", "set it to cpu, or start one process")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device in {"cpu", "mps"} or (device == "auto" and count == 0):
        return "cpu", None
    if local < count:
        torch.cuda.set_device(local)
        return "cuda", None
    what = f"process {local} of {socket.gethostname()} has no GPU: the host has {count}"
    return "cuda", (what, "device", "start one process per GPU, or set device to cpu")


@contextmanager
def joined(
    launcher: ClusterEnvironment, timeout_s: int, kind: str, facts: Mapping[str, object], problem: Problem | None
) -> Iterator[None]:
    """Open torch's default process group, and watch over its ranks, until the end of the context.

    Args:
        launcher: Launcher of the processes.
        timeout_s: Time to wait for other ranks, seconds.
        kind: Type of this process's device.
        facts: Name -> value of each setting that must be equal on all ranks.
        problem: Reason why this process cannot take part.

    Raises:
        ConfigError: A rank has a problem, other facts, or cannot be reached; raised on every rank.
        RankError: Another rank has stopped.
    """
    rank, size, timeout = launcher.global_rank(), launcher.world_size(), timedelta(seconds=timeout_s)
    where = f"{launcher.main_address}:{launcher.main_port}"
    with _answered(f"rank {rank} cannot find all {size} ranks", where, timeout_s):
        store, watch = _met(launcher, timeout_s, facts, problem)
    with watch.over():
        backends = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        with _answered(f"rank {rank} cannot exchange data with all {size} ranks", socket.gethostname(), timeout_s):
            own = PrefixStore("default_pg", store)
            dist.init_process_group(backends, store=own, rank=rank, world_size=size, timeout=timeout)
        try:
            yield
        finally:
            dist.destroy_process_group()


def send_refusal(problem: Problem) -> None:
    """Send the other ranks the reason why this process ends before it joins them, so that they do not wait for it."""
    with suppress(RuntimeError, OSError, ConfigError):  # the others do not answer, or have the reason now
        launcher = find_launcher()
        if launcher and launcher.world_size() > 1:
            _met(launcher, _REFUSAL_S, {}, problem)


def _met(
    launcher: ClusterEnvironment, timeout_s: int, facts: Mapping[str, object], problem: Problem | None
) -> tuple[Store, Watch]:
    """Find the other ranks; return the store of the rendezvous and the watch over the ranks, as `meet`."""
    rank, size, timeout = launcher.global_rank(), launcher.world_size(), timedelta(seconds=timeout_s)
    os.environ |= {"MASTER_ADDR": launcher.main_address, "MASTER_PORT": str(launcher.main_port)}
    store, _, _ = next(rendezvous("env://", rank, size, timeout=timeout))
    return store, meet(store, rank, size, facts=facts, problem=problem, timeout_s=timeout_s)


@contextmanager
def _answered(what: str, where: str, timeout_s: int) -> Iterator[None]:
    """Raise an error of the network, or of torch's store, as a `ConfigError`."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        refusal = ConfigError(
            what,
            where=where,
            fix="start all processes; allow connections between the hosts, and name their network in "
            f"GLOO_SOCKET_IFNAME if there are several; or raise execution.timeout_s above {timeout_s} s",
        )
        refusal.add_note(str(error).partition("\n")[0])
        raise refusal from error
