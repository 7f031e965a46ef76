"""Inputs that all models of a run share, and the jobs that train these models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from longvit.cohort.patients import Cohort
from longvit.cohort.splits import Fold
from longvit.config import Baseline, FinetuneConfig, TokenInput
from longvit.finetuning.data import shuffled_targets
from longvit.formats.predictions_csv import PREDICTIONS
from longvit.tokens.sequences import Slides, sequences


@dataclass(frozen=True)
class Experiment:
    """Inputs of every model of a run: tables and paths without weights, so that they can be sent to other processes.

    Args:
        config: Settings of the run.
        cohort: Patients, slides and targets.
        folds: All folds.
        stores: Store of every slide of the folds.
        source: Input of the encoder.
    """

    config: FinetuneConfig
    cohort: Cohort
    folds: Sequence[Fold]
    stores: dict[str, Path]
    source: TokenInput

    @property
    def sequences(self) -> list[Slides]:
        """All sequences that the model reads: one per slide, or one per patient."""
        cases = dict.fromkeys(case for fold in self.folds for part in fold.parts.values() for case in part)
        return [slides for case in cases for slides in sequences(self.cohort.slides[case], self.config.fusion)]

    def jobs(self, learner: Baseline | None = None) -> list["TrainingJob"]:
        """Return the jobs of one learner: for every fold a model of the true labels, then its shuffled controls."""
        return [
            TrainingJob(fold, shuffle, learner)
            for fold in self.folds
            for shuffle in (None, *range(self.config.shuffles))
        ]

    def targets(self, job: "TrainingJob") -> pd.DataFrame:
        """Return the training targets of a job, one row per patient."""
        if job.shuffle is None:
            return self.cohort.targets
        return shuffled_targets(self.cohort.targets, job.fold, (self.config.seed, job.shuffle))

    def folder(self, job: "TrainingJob") -> Path:
        """Return the folder of a job's model and predictions."""
        kind = self.config.out / ("" if job.learner is None else f"baselines/{job.learner}")
        return kind / f"fold_{job.fold.index}" / ("" if job.shuffle is None else f"shuffled_{job.shuffle}")

    def predictions(self, job: "TrainingJob") -> Path:
        """Return the last file that a job writes; its existence marks the job as done."""
        return self.folder(job) / PREDICTIONS


@dataclass(frozen=True)
class TrainingJob:
    """Training of one model.

    Args:
        fold: Patients to train on, and patients to predict.
        shuffle: Number of the permutation of the training labels; None for the true labels.
        learner: Name of a baseline, or None for the model itself.
    """

    fold: Fold
    shuffle: int | None = None
    learner: Baseline | None = None

    def __str__(self) -> str:
        kind = "" if self.learner is None else f"{self.learner}, "
        return f"{kind}fold {self.fold.index}" + ("" if self.shuffle is None else f", shuffled labels {self.shuffle}")
