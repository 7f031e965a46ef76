"""What a fold needs to be trained on at all; what makes it sound is for `longvit.cohort.checks` to say."""

from typing import NamedTuple

import pandas as pd

from longvit.cohort.patients import Cohort
from longvit.cohort.splits import Fold
from longvit.config import CoxTask, FinetuneConfig, NllTask, Task
from longvit.finetuning.task_loss import bin_edges
from preprocessing.errors import CohortError, ConfigError

_WITHOUT_VAL = "set select: last, which needs no loss on val"


def check_fold(fold: Fold, cohort: Cohort, config: FinetuneConfig) -> None:
    """Refuse a fold that cannot be trained on, before anything is computed.

    Raises:
        CohortError: Training patients of one class, too few events, or nobody who could be compared with another.
        ConfigError: Selection on val where val is the held-out part.
    """
    where = config.splits / f"splits_{fold.index}.csv"
    for part in ("train", "val") if config.select == "best_val" else ("train",):
        found = _problem(config.task, cohort.targets.loc[list(fold.parts[part])], part, cohort.classes)
        if found:
            raise CohortError(f"fold {fold.index} {found.what}", where=where, fix=found.fix)
    if config.select == "best_val" and fold.held_out == "val":
        raise ConfigError(
            f"fold {fold.index} has no test part, so val is what results are reported on",
            where=where,
            fix="set select: last, or add a test column; choosing the epoch on the reported part inflates the result",
        )


class _Problem(NamedTuple):
    what: str
    fix: str


def _problem(task: Task, targets: pd.DataFrame, part: str, classes: tuple[str, ...]) -> _Problem | None:
    """Why a loss of these patients would teach nothing, or choose nothing."""
    train = part == "train"
    if isinstance(task, CoxTask):
        return _incomparable(targets, part, task.min_events if train else 1)
    if isinstance(task, NllTask):
        return _without_bins(targets, task.bins) if train else None
    absent = sorted(set(classes) - set(targets["label"]))
    if train and absent:
        fix = "use splits stratified by class, or leave the fold out with folds"
        return _Problem(f"has no training patient of class {', '.join(absent)}", fix)
    return None


def _incomparable(targets: pd.DataFrame, part: str, needed: int) -> _Problem | None:
    """Cox's likelihood compares who dies with who is still at risk then; without either it is constant."""
    event = targets["event"] == 1
    if event.sum() < needed:
        last = "lower task.min_events" if part == "train" else _WITHOUT_VAL
        return _Problem(
            f"has {event.sum()} observed events in {part}, fewer than {needed}",
            f"use splits stratified by event, leave the fold out with folds, or {last}",
        )
    first = targets.loc[event, "time"].min()
    if not ((targets["time"] > first) | ((targets["time"] == first) & ~event)).any():
        return _Problem(
            f"has nobody in {part} who is still at risk when the first event happens: all are censored before",
            "check the time column, use splits stratified by event, or leave the fold out with folds"
            + ("" if part == "train" else f", or {_WITHOUT_VAL}"),
        )
    return None


def _without_bins(targets: pd.DataFrame, bins: int) -> _Problem | None:
    events = int((targets["event"] == 1).sum())
    if events < bins:
        return _Problem(
            f"has {events} observed events in train, fewer than {bins}, one for each bin of time",
            "use splits stratified by event, leave the fold out with folds, or lower task.bins",
        )
    if len(set(bin_edges(targets, bins))) < bins - 1:
        return _Problem(f"has too few different times of events in train for {bins} bins", "lower task.bins")
    return None
