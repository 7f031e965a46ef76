"""Windows of patients whose loss is computed together: each holds its share of events, or of every class."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from longvit.model.predictor import SlideItem


@dataclass(frozen=True)
class TrainingPatient:
    """One patient: the sequences of slides, and the target."""

    items: list[SlideItem]
    """One for each slide, or one for all."""
    label: int = -1
    """Index of the class."""
    time: float = float("nan")
    """Time of the event, or of the last visit."""
    event: bool = False
    """True if the event was observed."""


class BalancedWindows(Sampler[list[int]]):
    """Patients in windows, dealt stratum by stratum in an order of each epoch's own.

    A Cox loss compares patients with each other: a window without events has no gradient, and one patient at a time
    has a loss of 0. So the patients with and without an event are shuffled apart and dealt round the windows.

    Args:
        strata: Stratum of each patient: event or not, or the class.
        size: Patients wanted in a window.
        seed: Seed of the shuffling.
        most: Upper bound on the number of windows, so that each holds enough of the rarest stratum.
    """

    def __init__(self, strata: np.ndarray, size: int, seed: int, most: int | None = None) -> None:
        self.strata, self.seed, self.epoch = np.asarray(strata), seed, 0
        wanted = max(1, round(len(self.strata) / size))
        self.windows = wanted if most is None else max(1, min(wanted, most))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch, also of a resumed run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.windows

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.concatenate([rng.permutation(np.flatnonzero(self.strata == s)) for s in np.unique(self.strata)])
        yield from (order[start :: self.windows].tolist() for start in range(self.windows))
