"""Patients of a fold as a dataset of windows, and the targets of shuffled controls."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader, Dataset

from longvit.cohort.patients import Cohort
from longvit.cohort.splits import Fold
from longvit.config import FinetuneConfig
from longvit.finetuning.windows import BalancedWindows, TrainingPatient
from longvit.model.predictor import SlideItem
from longvit.tokens.sequences import Slides, sequences
from longvit.training.loop import loader_processes

SequenceReader = Callable[[Slides], SlideItem]
"""Slides -> what is read of them: their tokens, or what a frozen encoder made of them."""


class PatientDataset(Dataset[list[TrainingPatient]]):
    """A window of indices -> its patients.

    Args:
        patients: Patient ids.
        cohort: Their slides.
        targets: Their targets, a row each; may differ from the cohort's (shuffled controls), and may have no columns
            where nothing is known of them (prediction).
        read: How a sequence is read.
        fusion: Whether a patient's slides are sequences of their own, or one.
    """

    fusion: Literal["late", "early"]

    def __init__(
        self,
        patients: Sequence[str],
        cohort: Cohort,
        targets: pd.DataFrame,
        read: SequenceReader,
        fusion: Literal["late", "early"] = "late",
    ) -> None:
        self.patients, self.cohort, self.targets = list(patients), cohort, targets
        self.read, self.fusion = read, fusion

    def __len__(self) -> int:
        return len(self.patients)

    def __getitem__(self, window: list[int]) -> list[TrainingPatient]:
        return [self._patient(self.patients[i]) for i in window]

    def sequences(self, case: str) -> list[Slides]:
        """Return the sequences of a patient."""
        return sequences(self.cohort.slides[case], self.fusion)

    def _patient(self, case: str) -> TrainingPatient:
        items = [self.read(slides) for slides in self.sequences(case)]
        row = self.targets.loc[case]
        if self.cohort.classes:
            return TrainingPatient(items, label=self.cohort.classes.index(row["label"]))
        return TrainingPatient(items, time=float(row["time"]), event=bool(row["event"]))


def train_loader(dataset: PatientDataset, config: FinetuneConfig) -> DataLoader:
    """Return balanced windows of the training patients."""
    targets = dataset.targets.loc[dataset.patients]
    strata = targets[config.task.stratum].to_numpy()
    windows = BalancedWindows(strata, config.window, config.seed, config.task.most_windows(strata))
    workers = 0 if config.frozen else config.loader_workers
    return DataLoader(dataset, batch_size=None, sampler=windows, **loader_processes(workers))


def whole_loader(dataset: PatientDataset) -> DataLoader:
    """Return all patients of a part, in one window."""
    return DataLoader(dataset, batch_size=None, sampler=[list(range(len(dataset)))])  # type: ignore[arg-type]


def shuffled_targets(targets: pd.DataFrame, fold: Fold, seed: tuple[int, ...]) -> pd.DataFrame:
    """Return targets shuffled among the patients of train, and among those of val; test keeps its own."""
    rng = np.random.default_rng((*seed, fold.index))
    shuffled = targets.copy()
    for part in (fold.train, fold.val):
        rows = list(part)
        shuffled.loc[rows] = targets.loc[rng.permutation(rows)].to_numpy()
    return shuffled
