"""Windows of patients whose loss is computed together; each has its share of events, or of every class."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from longvit.model.predictor import SlideItem


@dataclass(frozen=True)
class TrainingPatient:
    """Input and target of a patient: slide sequences, and the class or survival."""

    items: list[SlideItem]
    """Input of each sequence: one per slide, or one for all slides."""
    label: int = -1
    """Index of the class."""
    time: float = float("nan")
    """Time of the event, or of the last visit."""
    event: bool = False
    """True if the event was observed."""


class BalancedWindows(Sampler[list[int]]):
    """Sampler of windows of patients, dealt stratum by stratum in a new order in each epoch.

    A Cox loss compares patients: a window without events has no gradient, and a single patient has a loss of 0. So
    patients with and without an event are shuffled separately, and dealt to the windows in turn.

    Args:
        strata: Stratum of each patient: event or not, or the class.
        size: Desired number of patients in a window.
        seed: Seed of the shuffling.
        most: Upper bound on the number of windows, so that each contains enough patients of the rarest stratum.
    """

    def __init__(self, strata: np.ndarray, size: int, seed: int, most: int | None = None) -> None:
        self.strata, self.seed, self.epoch = np.asarray(strata), seed, 0
        wanted = max(1, round(len(self.strata) / size))
        self.windows = wanted if most is None else max(1, min(wanted, most))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch, also in a resumed run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.windows

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.concatenate([rng.permutation(np.flatnonzero(self.strata == s)) for s in np.unique(self.strata)])
        yield from (order[start :: self.windows].tolist() for start in range(self.windows))
