"""Exchange of kept keys between the ranks of a group: LongNet's distributed algorithm (arXiv:2307.02486, section 3.3).

Ranks whose segment is cut send each other the kept keys and values of the heads that need them, and nothing else. All
messages for a layer's group of heads are one `all_to_all_single`, which takes shares of any length, and messages of
length 0. In the backward pass the keys are sent once more, and their gradients return the same way. A rank adds these
gradients in the order of the ranks, so that the sum does not depend on the network.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from longvit.model.attention.plan import AttentionPlan, HeadGroup
from longvit.model.rank_group import RankGroup


def start_exchange(plan: AttentionPlan, calls: Sequence[HeadGroup], *tensors: Tensor) -> "Exchange | None":
    """Start to exchange the kept tokens of some heads' tensors; return None if no segment is cut."""
    return Exchange(plan.group, calls, *tensors) if plan.group and plan.exchanges else None


class Exchange:
    """Kept tokens of other ranks, on their way while this rank computes.

    Args:
        group: Ranks that hold the sequence together; all of them start the exchange of these heads.
        calls: Calls of this rank for some heads.
        tensors: What the ranks send, such as keys and values of these heads, each (B, l, h, K), of one type.
    """

    def __init__(self, group: RankGroup, calls: Sequence[HeadGroup], *tensors: Tensor) -> None:
        self.group, self.calls = group, [call for call in calls if call.sources]
        sent: list[list[tuple[HeadGroup, int]]] = [[] for _ in range(group.size)]
        received: list[list[tuple[HeadGroup, int]]] = [[] for _ in range(group.size)]
        for call in calls:
            for rank in call.targets:
                sent[rank].append((call, call.kept))
            for rank, count in call.sources:
                received[rank].append((call, count))
        self.outgoing, self.incoming = _Messages(sent, tensors), _Messages(received, tensors)
        kept = {id(call): torch.stack([call.take(x) for x in tensors]) for call in calls if call.targets}
        for call, block in self.outgoing.blocks:
            block.copy_(kept[id(call)])
        self.work = self._send(self.outgoing, self.incoming)

    def arrived(self) -> Iterator[tuple[HeadGroup, tuple[Tensor, ...]]]:
        """Wait for the messages; yield each call that has keys elsewhere, and its tensors (rows, h, kept tokens, K)."""
        self.work.wait()
        for call in self.calls:
            yield call, torch.cat(self._blocks_of(call), dim=3).unbind()

    def set_gradients(self, call: HeadGroup, *grads: Tensor) -> None:
        """Set the gradients of a call's tensors, which overwrite the tensors themselves."""
        parts = torch.stack(grads).split([kept for _, kept in call.sources], dim=3)
        for block, part in zip(self._blocks_of(call), parts, strict=True):
            block.copy_(part)

    def add_returned_(self, grads: Iterable[Tensor]) -> None:
        """Send the gradients back, and add what the other ranks return to the gradients of this rank's tensors."""
        self._send(self.incoming, self.outgoing).wait()
        grads = list(grads)
        for call, block in self.outgoing.blocks:
            for grad, part in zip(grads, block, strict=True):
                call.view(grad).add_(call.put_back(part))

    def _blocks_of(self, call: HeadGroup) -> list[Tensor]:
        return [block for of_call, block in self.incoming.blocks if of_call is call]

    def _send(self, source: "_Messages", target: "_Messages") -> dist.Work:
        processes = self.group.processes
        work = dist.all_to_all_single(target.flat, source.flat, target.sizes, source.sizes, processes, async_op=True)
        return cast("dist.Work", work)  # None in a process that is not of the group


class _Messages:
    """Memory of the messages from or to every rank: for each call one block (tensors, rows, h, kept tokens, K)."""

    def __init__(self, of_ranks: Sequence[Sequence[tuple[HeadGroup, int]]], tensors: Sequence[Tensor]) -> None:
        like, calls = tensors[0], [call for of_rank in of_ranks for call in of_rank]
        shapes = [(len(tensors), *call.shape[:2], kept, like.shape[-1]) for call, kept in calls]
        lengths = iter(map(math.prod, shapes))
        self.sizes = [sum(next(lengths) for _ in of_rank) for of_rank in of_ranks]
        self.flat = like.new_empty(sum(self.sizes))
        parts = self.flat.split([math.prod(shape) for shape in shapes])
        self.blocks = [(call, part.view(shape)) for (call, _), part, shape in zip(calls, parts, shapes, strict=True)]
