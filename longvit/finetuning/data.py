"""Patients of a fold as a dataset, their slides as tokens or as representations computed once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from longvit.config import CoxTask, FinetuneConfig
from longvit.finetuning.cohort import Cohort, few
from longvit.finetuning.folds import Fold
from longvit.finetuning.model import SlideModel
from longvit.finetuning.module import Patient
from longvit.finetuning.windows import BalancedWindows
from longvit.tokens import SlideDataset, TokenBatch
from longvit.training import pick_device
from preprocessing.errors import CohortError

SlideReader = Callable[[str], TokenBatch] | Callable[[str], Tensor]


class PatientDataset(Dataset[list[Patient]]):
    """A window of indices -> its patients.

    Args:
        patients: Patient ids.
        cohort: Their slides.
        targets: Their targets, a row each; may differ from the cohort's (shuffled controls).
        read: Slide id -> its tokens, or its representation.
    """

    def __init__(self, patients: Sequence[str], cohort: Cohort, targets: pd.DataFrame, read: SlideReader) -> None:
        self.patients, self.cohort, self.targets, self.read = list(patients), cohort, targets, read

    def __len__(self) -> int:
        return len(self.patients)

    def __getitem__(self, window: list[int]) -> list[Patient]:
        return [self._patient(self.patients[i]) for i in window]

    def _patient(self, case: str) -> Patient:
        slides = [self.read(slide) for slide in self.cohort.slides[case]]
        row = self.targets.loc[case]
        if self.cohort.classes:
            return Patient(slides, label=self.cohort.classes.index(row["label"]))  # type: ignore[arg-type]
        return Patient(slides, time=float(row["time"]), event=bool(row["event"]))  # type: ignore[arg-type]


def train_loader(dataset: PatientDataset, config: FinetuneConfig) -> DataLoader:
    """Balanced windows of the training patients."""
    targets = dataset.targets.loc[dataset.patients]
    strata = targets["label" if dataset.cohort.classes else "event"].to_numpy()
    most = int(strata.sum()) // config.task.min_events if isinstance(config.task, CoxTask) else None
    windows = BalancedWindows(strata, config.window, config.seed, most)
    workers = 0 if config.freeze_encoder else config.loader_workers
    return DataLoader(dataset, batch_size=None, sampler=windows, num_workers=workers, persistent_workers=workers > 0)


def whole_loader(dataset: PatientDataset) -> DataLoader:
    """All patients of a part, in one window."""
    return DataLoader(dataset, batch_size=None, sampler=[list(range(len(dataset)))])  # type: ignore[arg-type]


def shuffled_targets(targets: pd.DataFrame, fold: Fold, seed: tuple[int, ...]) -> pd.DataFrame:
    """Targets dealt anew among the patients of train, and among those of val; test keeps the truth."""
    rng = np.random.default_rng((*seed, fold.index))
    shuffled = targets.copy()
    for part in (fold.train, fold.val):
        rows = list(part)
        shuffled.loc[rows] = targets.loc[rng.permutation(rows)].to_numpy()
    return shuffled


def cohort_stores(stores: dict[str, Path], cohort: Cohort, folds: Sequence[Fold], folder: Path) -> dict[str, Path]:
    """The store of every slide of every patient in the folds.

    Raises:
        CohortError: Slides without a store.
    """
    cases = sorted({case for fold in folds for case in (*fold.train, *fold.val, *fold.test)})
    slides = [slide for case in cases for slide in cohort.slides[case]]
    missing = sorted(set(slides) - set(stores))
    if missing:
        raise CohortError(
            f"{len(missing)} of {len(slides)} slides have no store: {few(missing)}",
            where=folder,
            fix="tile them with `longvit tile`, or remove their patients from the splits",
        )
    return {slide: stores[slide] for slide in slides}


def represent_slides(
    model: SlideModel, stores: dict[str, Path], config: FinetuneConfig, cache: Path
) -> dict[str, Tensor]:
    """(1, D) representation of each slide by the frozen encoder, computed once per run and kept in `cache`."""
    if cache.exists():
        return load_file(cache)
    device = pick_device(config.device)
    frozen, dataset = model.eval().to(device), SlideDataset(list(stores.values()), model.encoder.config.input)
    loader = DataLoader(dataset, batch_size=None, num_workers=config.loader_workers)
    with torch.inference_mode():
        tokens = track(loader, "encode slides", total=len(dataset))
        vectors = [frozen.represent(batch.to(device)).float().cpu() for batch in tokens]
    representations = dict(zip(stores, vectors, strict=True))
    temporary = cache.with_name(f".{cache.name}.tmp")
    save_file(representations, temporary)
    temporary.replace(cache)
    model.cpu()
    return representations
