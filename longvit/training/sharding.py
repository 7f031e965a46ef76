"""Weights, gradients and optimiser cut over all processes (FSDP2, arXiv:2304.11277), in place of a copy on each.

Every process keeps a share of each weight. Weights are gathered when they are needed, and freed afterwards. Gradients
become their mean over all ranks, as by `ddp`. Pretraining gathers a block at a time. Finetuning gathers all weights for
a step: its ranks have slides in different numbers, so they would wait for each other's blocks. Checkpoints contain
whole weights and whole states of the optimiser, so that a mesh of any other shape can continue, sharded or not.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from longvit.model.encoder import Block

if TYPE_CHECKING:
    from longvit.training.loop import TrainingModule

_ENTRIES = ("training_step", "validation_step", "represent")
"""Methods of a training module that compute with its weights."""


class ShardedStrategy(DDPStrategy):
    """Lightning's strategy for processes that hold shares of the weights, one process per device."""

    def _setup_model(self, model: nn.Module) -> nn.Module:  # type: ignore[override]
        shard(cast("TrainingModule", model), self.root_device.type)
        return model

    def _register_ddp_hooks(self) -> None:
        """Set no hooks, because there is no DistributedDataParallel."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return whole weights, on every rank."""
        return whole(self.lightning_module.state_dict() if self.lightning_module else {})

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimiser, on every rank."""
        return whole(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the rank's share of a whole state."""
        for optimiser, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            own = {i: {name: _share(x, parameters[i]) for name, x in of.items()} for i, of in state["state"].items()}
            optimiser.load_state_dict(state | {"state": own})


def shard(module: "TrainingModule", kind: str) -> None:
    """Cut the weights of a training module over all processes, if it allows each block by itself, the rest together.

    Args:
        module: Module with whole weights, the same on every rank.
        kind: Type of the device.
    """
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    for block in [part for part in module.modules() if isinstance(part, Block)] if module.ranks_alike else ():
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for name in _ENTRIES:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def whole(state: Any) -> Any:  # noqa: ANN401 - as nested as an optimiser's state
    """Return a state with every share of a tensor replaced by the whole tensor, on the CPU; all ranks must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    return [whole(value) for value in state] if isinstance(state, list) else state


def load_whole(module: pl.LightningModule, state: Mapping[str, Tensor]) -> None:
    """Load whole weights into a module, whether it is sharded or not."""
    now = module.state_dict()
    module.load_state_dict({name: _share(value, now[name]) for name, value in state.items()})


def _share(value: Any, like: Tensor) -> Any:  # noqa: ANN401 - an optimiser's state also has numbers
    """Return this rank's share of a whole tensor of a weight's shape; other values are the same on every rank."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(cast("Tensor", value).to(like.device), like.device_mesh, like.placements)


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm of all gradients together, whole on every rank."""
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
