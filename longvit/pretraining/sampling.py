"""Draws shared evenly among patients, independent of the number and the size of their slides."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Sampler


class SlideSchedule:
    """Sequence that maps a draw's number to a slide: patients take turns, and so do the slides of a patient.

    With P patients, any P consecutive draws contain each patient once. In any k such rounds, each of a patient's s
    slides is drawn k / s times, rounded up or down.

    Args:
        stores: One store per slide, named `<slide_id>.zarr`.
        patient_of: Patient of each slide id; a slide without an entry is a patient of its own.
    """

    def __init__(self, stores: Sequence[Path], patient_of: Mapping[str, str]) -> None:
        slides: dict[tuple[str, str], list[Path]] = {}
        for path in stores:
            slide = path.name.removesuffix(".zarr")
            key = ("patient", patient_of[slide]) if slide in patient_of else ("slide", slide)
            slides.setdefault(key, []).append(path)
        self.patients = list(slides.values())

    def __getitem__(self, draw: int) -> Path:
        round_, patient = divmod(draw, len(self.patients))
        slides = self.patients[patient]
        return slides[round_ % len(slides)]


class DrawSampler(Sampler[int]):
    """Sampler of draws' numbers in a random order, new in every epoch, the same for the same seed and epoch.

    Args:
        length: Number of draws in an epoch.
        seed: Seed of the order.
        batch: Number of draws in a batch; a last batch with fewer is left out.
        part: Part of each batch that this rank of a mesh draws.
    """

    def __init__(self, length: int, seed: int, batch: int = 1, part: slice = slice(None)) -> None:
        self.length, self.seed, self.epoch, self.batch, self.part = length, seed, 0, batch, part

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch, also in a resumed run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch * len(range(self.batch)[self.part])

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length) + self.epoch * self.length
        for start in range(0, self.length - self.batch + 1, self.batch):
            yield from order[start : start + self.batch][self.part].tolist()
