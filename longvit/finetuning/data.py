"""Dataset of a fold's patients in windows, and the targets of shuffled controls."""

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
from longvit.training.mesh import current_mesh

SequenceReader = Callable[[Slides], SlideItem]
"""Function from the slides of a sequence to the model's input: their tokens, or a frozen encoder's output."""


class PatientDataset(Dataset[list[TrainingPatient]]):
    """Dataset that maps a window of indices to its patients.

    Args:
        patients: Patient ids.
        cohort: Slides of the patients.
        targets: Targets of the patients, one row per patient. They may differ from the cohort's (shuffled controls),
            and may have no columns if the targets are unknown (prediction).
        read: Reader of a sequence.
        fusion: `late` makes each slide of a patient a sequence, `early` makes all of them one sequence.
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
        read = set(window[current_mesh().data_part])
        return [self._patient(self.patients[i], read=i in read) for i in window]

    def sequences(self, case: str) -> list[Slides]:
        """Return the sequences of a patient."""
        return sequences(self.cohort.slides[case], self.fusion)

    def _patient(self, case: str, *, read: bool) -> TrainingPatient:
        """Return a patient; without `read`, only the target, because another rank of the mesh computes the output."""
        items = [self.read(slides) for slides in self.sequences(case)] if read else []
        row = self.targets.loc[case]
        if self.cohort.classes:
            return TrainingPatient(items, label=self.cohort.classes.index(row["label"]))
        return TrainingPatient(items, time=float(row["time"]), event=bool(row["event"]))


def train_loader(dataset: PatientDataset, config: FinetuneConfig) -> DataLoader:
    """Return a loader of balanced windows of the training patients."""
    targets = dataset.targets.loc[dataset.patients]
    strata = targets[config.task.stratum].to_numpy()
    windows = BalancedWindows(strata, config.window, config.seed, config.task.most_windows(strata))
    current_mesh().require_shares("window", len(strata) // windows.windows)
    workers = 0 if config.frozen else config.loader_workers
    return DataLoader(dataset, batch_size=None, sampler=windows, **loader_processes(workers))


def whole_loader(dataset: PatientDataset) -> DataLoader:
    """Return a loader of all patients of a part, in one window."""
    return DataLoader(dataset, batch_size=None, sampler=[list(range(len(dataset)))])  # type: ignore[arg-type]


def shuffled_targets(targets: pd.DataFrame, fold: Fold, seed: tuple[int, ...]) -> pd.DataFrame:
    """Return targets shuffled among the train patients, and among the val patients; test patients keep their own."""
    rng = np.random.default_rng((*seed, fold.index))
    shuffled = targets.copy()
    for part in (fold.train, fold.val):
        rows = list(part)
        shuffled.loc[rows] = targets.loc[rng.permutation(rows)].to_numpy()
    return shuffled
