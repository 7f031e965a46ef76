"""Cohort -> folds of three parts: by patient, stratified by class or event, by whole sites if requested."""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from longvit.cohort.patients import Cohort
from longvit.cohort.splits import Fold
from preprocessing.errors import CohortError, few


def make_folds(cohort: Cohort, folds: int, seed: int, *, keep_sites_together: bool = False) -> list[Fold]:
    """Divide patients into as many blocks as folds; in fold k, block k is test, the next block val, the rest train.

    So every patient is once in test and once in val. Blocks are stratified by class, or by whether the event was
    observed. Whole sites are stratified as well as the sites allow (StratifiedGroupKFold of scikit-learn).

    Args:
        cohort: Patients to divide.
        folds: Number of folds, at least 3.
        seed: Seed of the draw; the result does not depend on the order of the table.
        keep_sites_together: Divide sites instead of patients.

    Raises:
        CohortError: A class or the event is too rare for every part, or a patient's site is unknown.
    """
    strata = cohort.strata.sort_index()
    _refuse_rare(strata, folds)
    if keep_sites_together:
        dealer, groups = StratifiedGroupKFold(folds, shuffle=True, random_state=seed), _sites(strata, cohort, folds)
    else:
        dealer, groups = StratifiedKFold(folds, shuffle=True, random_state=seed), None
    cases = strata.index.to_numpy()
    blocks = [cases[block] for _, block in dealer.split(cases, strata.astype(str), groups)]
    for block in blocks:
        absent = sorted(set(map(_named, strata)) - set(map(_named, strata[block])))
        if absent:
            raise CohortError(
                f"whole sites leave one of {folds} blocks without {few(absent)}",
                where="keep_sites_together",
                fix="use fewer folds or another seed, or split patients instead of sites",
            )
    return [_fold(k, blocks) for k in range(folds)]


def _fold(k: int, blocks: list[np.ndarray]) -> Fold:
    test, val = k, (k + 1) % len(blocks)
    train = [case for j, block in enumerate(blocks) if j not in (test, val) for case in block]
    return Fold(k, tuple(sorted(train)), tuple(blocks[val]), tuple(blocks[test]))


def _named(stratum: object) -> str:
    return stratum if isinstance(stratum, str) else ("censored patients", "observed events")[int(stratum)]  # type: ignore[call-overload]


def _refuse_rare(strata: pd.Series, folds: int) -> None:
    counts = strata.map(_named).value_counts().sort_index()
    rare = [f"{name} ({count})" for name, count in counts.items() if count < folds]
    if strata.nunique() < 2:
        raise CohortError(
            f"all patients are of one stratum: {counts.index[0]}",
            where=f"{len(strata)} patients",
            fix="check the columns named in task; there is nothing to predict",
        )
    if rare:
        raise CohortError(
            f"too few patients for {folds} folds: {', '.join(rare)}",
            where=f"{len(strata)} patients",
            fix="use fewer folds, merge rare classes with task.label_map, or leave them out with task.ignore",
        )


def _sites(strata: pd.Series, cohort: Cohort, folds: int) -> list[str]:
    unknown = [case for case in strata.index if case not in cohort.sites]
    if unknown:
        raise CohortError(
            f"the site of {len(unknown)} patients is unknown: {few(unknown)}",
            where="keep_sites_together",
            fix="name the column of sites with site_column; only TCGA barcodes contain the site",
        )
    sites = [cohort.sites[case] for case in strata.index]
    if len(set(sites)) < folds:
        fix = f"use at most {len(set(sites))} folds"
        what = f"{len(set(sites))} sites are too few for {folds} folds"
        raise CohortError(what, where="keep_sites_together", fix=fix)
    return sites
