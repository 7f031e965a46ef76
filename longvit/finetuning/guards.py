"""Checks that a fold can be trained on; `longvit.cohort.checks` contains the checks that a fold is sound."""

from longvit.cohort.patients import Cohort
from longvit.cohort.splits import Fold
from longvit.config import FinetuneConfig
from preprocessing.errors import CohortError, ConfigError


def check_fold(fold: Fold, cohort: Cohort, config: FinetuneConfig) -> None:
    """Refuse a fold that cannot be trained on, before anything is computed.

    Raises:
        CohortError: All training patients have one class, events are too few, or no two patients can be compared.
        ConfigError: The epoch is selected on val, and val is the held-out part.
    """
    where = fold.path or config.splits
    for part in ("train", "val") if config.select == "best_val" else ("train",):
        found = config.task.problem(cohort.targets.loc[list(fold.parts[part])], part, cohort.classes)
        if found:
            raise CohortError(f"fold {fold.index} {found.what}", where=where, fix=found.fix)
    if config.select == "best_val" and fold.held_out == "val":
        raise ConfigError(
            f"fold {fold.index} has no test part, so results are reported on val",
            where=where,
            fix="set select: last, or add a test column; choosing the epoch on the reported part inflates the result",
        )
