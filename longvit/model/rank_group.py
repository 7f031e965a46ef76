"""Group of processes that compute together: on shares of one sequence, or on shares of one batch.

Every rank of a group computes the same loss, from the slide vectors of all ranks. The sums are over the ranks, in both
directions: their backward pass adds up the gradients of all ranks. So the gradient of a parameter on one rank is a
share of the gradient of the sum of all ranks' losses, and the mean of a parameter's gradients over all ranks is the
gradient of one process. DistributedDataParallel computes this mean. It is right for every parameter: where it works on
tokens, each rank has a share of the gradient, and where it works on slide vectors, each rank has all of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from preprocessing.errors import ConfigError, PipelineError

T = TypeVar("T")


@dataclass(frozen=True)
class RankGroup:
    """Ranks that compute together, in the order of their shares."""

    processes: dist.ProcessGroup
    """Processes of the ranks."""

    @property
    def rank(self) -> int:
        """Rank of this process in the group, from 0."""
        return dist.get_rank(self.processes)

    @property
    def size(self) -> int:
        """Number of ranks."""
        return dist.get_world_size(self.processes)

    def __deepcopy__(self, memo: dict[int, object]) -> "RankGroup":
        return self

    def sum(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return the sum of a tensor of one shape over all ranks; also its gradient is summed over all ranks."""
        return _Sum.apply(self.processes, x)

    def max(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return the largest values of a tensor of one shape over all ranks; it has no gradient."""
        x = x.detach().clone()
        dist.all_reduce(x, dist.ReduceOp.MAX, group=self.processes)
        return x

    def gathered(self, x: Shaped[Tensor, " n"]) -> Shaped[Tensor, "ranks n"]:
        """Return a vector of one length from all ranks, in the order of the ranks; it has no gradient."""
        rows = x.new_empty(self.size, len(x))
        dist.all_gather(list(rows), x.contiguous(), group=self.processes)
        return rows

    def spread(self, x: Shaped[Tensor, "n ..."], rows: Sequence[int], total: int) -> Shaped[Tensor, "total ..."]:
        """Return all rows of a table on every rank, with gradients; each row comes from the rank that has it.

        Args:
            x: Rows of this rank.
            rows: Number of each of these rows in the table.
            total: Number of rows of the table.
        """
        return self.sum(x.new_zeros(total, *x.shape[1:]).index_copy(0, torch.tensor(rows, device=x.device), x))

    def joined(self, x: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "m ..."]:
        """Return the tensors of all ranks, joined along their first axis; there is no gradient."""
        lengths = [int(n) for (n,) in self.gathered(torch.tensor([len(x)], device=x.device)).tolist()]
        parts = [x.new_zeros(max(lengths), *x.shape[1:]) for _ in lengths]
        padded = x.detach().new_zeros(max(lengths), *x.shape[1:])
        padded[: len(x)] = x.detach()
        dist.all_gather(parts, padded, group=self.processes)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def objects(self, value: T) -> list[T]:
        """Return a value from all ranks, in the order of the ranks."""
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.processes)
        return cast("list[T]", values)

    def share(self, length: int) -> range:
        """Return this rank's share of a sequence: shares are contiguous, and their lengths differ by at most 1.

        Raises:
            ConfigError: The sequence has fewer tokens than the group has ranks; raised on every rank.
        """
        if length < self.size:
            raise ConfigError(
                f"a sequence of {length} tokens cannot be cut into {self.size} shares",
                where="execution.sequence_parallel",
                fix=f"lower it to at most {length}, or leave the slide out",
            )
        return rank_share(length, self.rank, self.size)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise on every rank the error that one rank raises in this context, so that no rank waits for another.

        Raises:
            PipelineError: A rank raised it; of several, the error of the first rank.
        """
        own: PipelineError | None = None
        try:
            yield
        except PipelineError as error:
            own = error
        first = next((error for error in self.objects(own) if error is not None), None)
        if first is not None:
            raise first

    @contextmanager
    def own_random_numbers(self, device: torch.device) -> Iterator[None]:
        """Draw other numbers on every rank, such as dropout's; outside, ranks with the same seed draw the same."""
        seed = int(torch.randint(2**62, ())) + dist.get_rank()
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            torch.manual_seed(seed)
            yield


def rank_share(length: int, rank: int, ranks: int) -> range:
    """Return a rank's share of a sequence; shares are contiguous, and their lengths differ by at most 1."""
    return range(length * rank // ranks, length * (rank + 1) // ranks)


@dataclass(frozen=True)
class SharedBatch:
    """Batch of V views of the same slides, of which every rank of a group has equally many slides.

    The rows of the whole batch are view after view, and in a view rank after rank, as in one process.
    """

    group: RankGroup
    """Ranks that share the batch."""
    views: int
    """Number V of views."""
    local: int
    """Number of rows of this rank."""

    @property
    def total(self) -> int:
        """Number of rows of the whole batch."""
        return self.local * self.group.size

    @property
    def rows(self) -> list[int]:
        """Number of each row of this rank in the whole batch."""
        of_view = self.local // self.views
        first = (view * of_view * self.group.size + self.group.rank * of_view for view in range(self.views))
        return [start + i for start in first for i in range(of_view)]

    def gathered(self, x: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "total ..."]:
        """Return the rows of all ranks, with gradients."""
        return self.group.spread(x, self.rows, self.total)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, processes: dist.ProcessGroup, x: Tensor) -> Tensor:  # noqa: ANN401
        ctx.processes = processes
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x, group=processes)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:  # noqa: ANN401
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.processes)
        return None, grad
