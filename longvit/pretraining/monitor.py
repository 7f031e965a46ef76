"""Health of a run: gradient and teacher's momentum as numbers, and problems in the metrics as sentences."""

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor

from longvit.pretraining.pretrain_module import PretrainModule
from longvit.training.callbacks import Meter, Row, risen
from longvit.training.sharding import total_norm

MIN_STD = 0.02
"""Spread of unit features, as a share of the spread of random directions, below which all features count as equal."""
MIN_RANK = 1.5
"""Effective rank below which features count as being on a line."""
MAX_ENTROPY = 0.99
"""Share of the largest possible entropy above which a teacher's output counts as the same for every crop."""


class Monitor(Meter):
    """Measures of an epoch's steps: `gradient_norm` (mean, before it is clipped) and `momentum` of the last step."""

    def __init__(self) -> None:
        self.measured = {}
        self._norms: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard the measurements of an earlier run."""
        self._norms.clear()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure the norm of the gradient, before it is clipped."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._norms.append(total_norm(gradients))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: PretrainModule) -> None:
        """Compute the measures of the epoch."""
        self.measured = {"gradient_norm": torch.stack(self._norms).mean().item()}
        if pl_module.momentum_now is not None:
            self.measured["momentum"] = float(pl_module.momentum_now)
        self._norms.clear()


def noted(rows: Sequence[Row], epochs: int, noise: float) -> list[str]:
    """Return sentences about the metrics of a run of `epochs` epochs; `noise` is as in `verdict`."""
    return risen(rows) + health(rows) + verdict(rows, epochs, noise)


def health(rows: Sequence[Row]) -> list[str]:
    """Return sentences about problems in the metrics so far; the list may be empty.

    Each kind of problem is reported once, with its first epoch.

    Args:
        rows: Rows of `metrics.csv`, in order.
    """
    found = []
    for column, wrong, sentence in _TROUBLES:
        seen = next((row for row in rows if column in row and wrong(row[column])), None)
        if seen:
            found.append(f"epoch {seen['epoch']}: " + sentence.format(seen[column]))
    return found


def verdict(rows: Sequence[Row], epochs: int, noise: float) -> list[str]:
    """Return the linear probe's verdict on pretraining as a list of one sentence.

    The list is empty before the last epoch, and without a probe.

    Args:
        rows: Rows of `metrics.csv`, in order.
        epochs: Number of epochs of the run.
        noise: Standard error of the probe's AUROC; a smaller gain may be chance.
    """
    probed = [row for row in rows if "probe_linear" in row]
    if len(probed) < 2 or probed[-1]["epoch"] != epochs - 1:
        return []
    first, last = probed[0]["probe_linear"], probed[-1]["probe_linear"]
    helped = "helped" if last - first > noise else "has not helped" if last <= first else "has not clearly helped"
    return [
        f"pretraining {helped} this encoder: linear probe {first:.3f} with random weights, {last:.3f} at the end "
        f"(AUROC on held-out patients, 0.5 is chance, standard error {noise:.2f}); "
        f"with other random weights the first value may differ a lot"
    ]


_COLLAPSED = "the run has collapsed: "
_CURE = "; lower the learning rate or the stain jitter, or use a larger batch, and start again"
_TROUBLES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (
        "feature_std",
        lambda value: value < MIN_STD,
        _COLLAPSED + "all regions get nearly the same representation (feature_std {:.3f})" + _CURE,
    ),
    (
        "effective_rank",
        lambda value: value < MIN_RANK,
        _COLLAPSED + "representations differ in a single direction (effective_rank {:.2f})" + _CURE,
    ),
    (
        "teacher_entropy",
        lambda value: value > MAX_ENTROPY,
        _COLLAPSED
        + "the teacher has the same output for every crop (teacher_entropy {:.4f}); lower teacher_temperature",
    ),
)
"""Column, test for a problem, and sentence, of each kind of problem."""
