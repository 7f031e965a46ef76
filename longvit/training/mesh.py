"""Mesh of a run's processes: data x sequence.

A launcher starts the same command once per device: torchrun, or Slurm's srun. Ranks along `data` work on different
slides or patients. Ranks along `sequence` hold each sequence together; they are neighbours, because they exchange the
most. All ranks run the same code, and files are written by the first rank.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.device_mesh import init_device_mesh

from longvit import __version__
from longvit.config import Device, ExecutionConfig
from longvit.model.rank_group import RankGroup
from longvit.training.joining import device_kind, find_launcher, joined
from longvit.training.liveness import Problem
from longvit.training.sharding import ShardedStrategy
from preprocessing.errors import ConfigError, PipelineError, few

T = TypeVar("T")

_set_timeout = getattr(dist, "set_timeout", None) or distributed_c10d._set_pg_timeout
"""Function that sets the time to wait in a group's collectives; its public name is new in torch 2.14."""
_PATIENCE = timedelta(days=7)
"""Time to wait for a rank that is alive and works on longer slides than the others."""


@dataclass(frozen=True)
class Mesh:
    """Processes of a run. Without groups, this process is the only one."""

    world: RankGroup | None = None
    """All ranks."""
    data: RankGroup | None = None
    """Ranks with the same share of different sequences; None if there is one such rank."""
    sequence: RankGroup | None = None
    """Ranks that hold the same sequence together; None if there is one such rank."""
    devices: int = 1
    """Ranks on each machine."""

    def trainer_settings(self, *, fsdp: bool = False) -> dict[str, Any]:
        """Return settings of Lightning's trainer; gradients become their mean over all ranks, as `RankGroup` needs.

        Args:
            fsdp: Whether weights are cut over all processes.
        """
        if self.world is None:
            return {"devices": 1}
        nodes, strategy = self.world.size // self.devices, ShardedStrategy() if fsdp else "ddp"
        return {"devices": self.devices, "num_nodes": nodes, "strategy": strategy, "use_distributed_sampler": False}

    @property
    def first(self) -> bool:
        """True on the rank that writes files."""
        return self.world is None or self.world.rank == 0

    @property
    def data_part(self) -> slice:
        """Part of a list of slides or patients that this rank works on."""
        return slice(None) if self.data is None else slice(self.data.rank, None, self.data.size)

    def from_first(self, make: Callable[[], T]) -> T:
        """Return on every rank what the first rank makes.

        Raises:
            PipelineError: `make` raised it on the first rank; it is raised on every rank.
        """
        if self.world is None:
            return make()
        answer: list[object] = [None]
        if self.first:
            try:
                answer = [make()]
            except PipelineError as error:
                answer = [error]
        dist.broadcast_object_list(answer, group=self.world.processes, group_src=0)
        if isinstance(answer[0], PipelineError):
            raise answer[0]
        return cast("T", answer[0])

    def of_all(self, value: T) -> list[T]:
        """Return the value of every rank, in the order of the ranks."""
        return [value] if self.world is None else self.world.objects(value)

    @contextmanager
    def entered_by_first(self, context: AbstractContextManager[T]) -> Iterator[T]:
        """Enter a context on the first rank alone, and yield on every rank what it gives."""
        with ExitStack() as stack:
            yield self.from_first(lambda: stack.enter_context(context))

    def require_shares(self, name: str, number: int, *, even: bool = False) -> None:
        """Refuse a batch or window that leaves `data` ranks without a slide or patient.

        Args:
            name: Name of the setting.
            number: Number of slides or patients.
            even: Whether all ranks must have equally many.

        Raises:
            ConfigError: Some ranks would have nothing, or less than others.
        """
        ranks = self.data.size if self.data else 1
        if number < ranks or (even and number % ranks):
            raise ConfigError(
                f"{ranks} ranks cannot share {number} {'evenly' if even else 'patients'}",
                where=name,
                fix=f"set it to {'a multiple of' if even else 'at least'} {ranks}, or start fewer processes",
            )

    def require_same(self, what: str, value: object) -> None:
        """Refuse ranks that disagree, before anything is computed.

        Args:
            what: Name of the value, for the message.
            value: Value with a `repr` that is equal on all ranks if the value is.

        Raises:
            ConfigError: A rank has another value; raised on every rank.
        """
        marks = self.of_all(hashlib.sha256(repr(value).encode()).hexdigest())
        others = [rank for rank, mark in enumerate(marks) if mark != marks[0]]
        if others:
            raise ConfigError(
                f"rank {others[0]} has {what} that differ from those of rank 0",
                where=f"{len(marks)} processes",
                fix="start the same command with the same files for all processes",
            )

    def require_tokens(self, lengths: Mapping[str, int]) -> None:
        """Refuse sequences that are too short to be cut, before anything is computed.

        Args:
            lengths: Name of each sequence -> its number of tokens.

        Raises:
            ConfigError: A sequence has fewer tokens than ranks that hold it together.
        """
        ranks = self.sequence.size if self.sequence else 1
        short = sorted(name for name, length in lengths.items() if length < ranks)
        if short:
            raise ConfigError(
                f"{len(short)} of {len(lengths)} sequences have too few tokens for {ranks} ranks: {few(short)}",
                where="execution.sequence_parallel",
                fix=f"lower it to at most {min(lengths.values())}, or leave these slides out",
            )


_mesh = Mesh()


def current_mesh() -> Mesh:
    """Return the mesh that this process is in; a process that no launcher started is alone."""
    return _mesh


@contextmanager
def alone() -> Iterator[None]:
    """Compute without the mesh, for small work that one rank does for all."""
    global _mesh
    mesh, _mesh = _mesh, Mesh()
    try:
        yield
    finally:
        _mesh = mesh


@contextmanager
def open_mesh(execution: ExecutionConfig, device: Device, *, trains: bool = False) -> Iterator[Mesh]:
    """Join the other processes that the launcher started, and yield the mesh, until the end of the context.

    Args:
        execution: Ranks per sequence, and the time to wait for other ranks.
        device: Device of the settings; `auto` and `cuda` take one GPU per process.
        trains: Whether the processes exchange gradients.

    Raises:
        ConfigError: The number of ranks per sequence does not divide the number of processes, a process has no device,
            the other processes do not answer, they were started with another version or other devices, or there are
            not as many as the settings name.
        RankError: Another process has stopped.
    """
    global _mesh
    launcher = find_launcher()
    size, ranks = launcher.world_size() if launcher else 1, execution.sequence_parallel
    uneven = _uneven(ranks, size)
    if launcher is None or size == 1:
        if uneven:
            what, where, fix = uneven
            raise ConfigError(what, where=where, fix=fix)
        _require_started(execution, 1, 1)
        yield _mesh
        return
    kind, problem = device_kind(launcher.local_rank(), device, trains=trains)
    facts = {"version": __version__, "execution.sequence_parallel": ranks, "execution.fsdp": execution.fsdp}
    facts["device"] = kind
    with joined(launcher, execution.timeout_s, kind, facts, uneven or problem):
        axes = init_device_mesh(kind, (size // ranks, ranks), mesh_dim_names=("data", "sequence"))
        for axis in axes.get_all_groups():
            _set_timeout(timedelta(seconds=execution.timeout_s), axis)
        of = lambda axis, count: RankGroup(axes.get_group(axis)) if count > 1 else None
        world = RankGroup(cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=_PATIENCE)))
        devices = 1 + max(world.objects(launcher.local_rank()))
        _require_started(execution, size // devices, devices)
        _mesh = Mesh(world, of("data", size // ranks), of("sequence", ranks), devices)
        try:
            yield _mesh
        finally:
            _mesh = Mesh()


def _uneven(ranks: int, size: int) -> Problem | None:
    """Return the problem of a number of ranks per sequence that does not divide the number of processes."""
    if size % ranks == 0:
        return None
    what = f"{ranks} ranks per sequence do not divide {size} {'process' if size == 1 else 'processes'}"
    fix = f"start a multiple of {ranks} processes: --devices {ranks}, or torchrun --nproc-per-node {ranks}"
    return what, "execution.sequence_parallel", fix


def _require_started(execution: ExecutionConfig, nodes: int, devices: int) -> None:
    """Refuse other numbers of processes than the settings name."""
    if (execution.nodes, execution.devices) not in {(1, 1), (nodes, devices)}:
        raise ConfigError(
            f"{nodes} x {devices} processes were started (machines x devices), but the settings name {execution.nodes} "
            f"x {execution.devices}",
            where="execution.nodes, execution.devices",
            fix="start as many with torchrun (--nnodes, --nproc-per-node) or Slurm, or leave both settings out",
        )
