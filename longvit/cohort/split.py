"""Verb `split`: table -> `splits_<k>.csv`."""

from pathlib import Path

from rich.console import Console

from longvit.cohort.audit import print_counts
from longvit.cohort.patients import read_cohort
from longvit.cohort.splits import write_folds
from longvit.cohort.stratify import make_folds
from longvit.config import SplitConfig
from longvit.runs.folder import open_run
from longvit.runs.input_hashes import read_inputs
from preprocessing.store.store import find_stores


def run(config: SplitConfig) -> Path:
    """Make splits, and write them next to the settings that made them.

    Returns:
        The folder of `splits_<k>.csv`.

    Raises:
        CohortError: The table cannot be used, a class is too rare for every part, or the folder has other splits.
    """
    stores = find_stores(config.stores) if config.stores is not None else {}
    cohort = read_cohort(config.table, config.task, config.slide_table, config.site_column, stores)
    config = config.model_copy(update={"task": cohort.task})
    folds = make_folds(cohort, config.folds, config.seed, keep_sites_together=config.keep_sites_together)
    inputs = read_inputs({"table": config.table, "slide_table": config.slide_table})
    with open_run(config, "split", inputs, config.out / f"splits_{folds[-1].index}.csv") as run:
        if not run.finished:
            write_folds(config.out, folds, cohort)
    print_counts(cohort, folds, Console(stderr=True))
    return config.out
