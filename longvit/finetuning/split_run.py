"""Verb `split`: table -> `splits_<k>.csv`."""

from pathlib import Path

from longvit.config import SplitConfig
from longvit.finetuning.cohort import read_cohort
from longvit.finetuning.folds import write_folds
from longvit.finetuning.splits import make_folds
from longvit.settings import to_yaml
from preprocessing.files import write_whole


def run(config: SplitConfig) -> Path:
    """Make splits, and write them beside the settings that made them.

    Returns:
        The folder of `splits_<k>.csv`.

    Raises:
        CohortError: The table cannot be used, something is too rare to be in every part, or there are splits already.
    """
    cohort = read_cohort(config.table, config.task, config.slide_table, config.site_column)
    folds = make_folds(cohort, config.folds, config.seed, keep_sites_together=config.keep_sites_together)
    write_folds(config.out, folds, cohort)
    write_whole(config.out / "config.yaml", to_yaml(config))
    return config.out
