from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from longvit.cohort.patients import Cohort
from longvit.cohort.splits import Fold
from longvit.cohort.stratify import make_folds
from longvit.config import SubtypeTask
from preprocessing.errors import CohortError


def people(labels: list[str], sites: list[str] | None = None) -> Cohort:
    cases = [f"P{i:03d}" for i in range(len(labels))]
    targets = pd.DataFrame({"label": labels}, index=pd.Index(cases, name="case_id"))
    slides = {case: [f"{case}-1"] for case in cases}
    return Cohort(
        slides,
        targets,
        tuple(sorted(set(labels))),
        frozenset(),
        dict(zip(cases, sites or [], strict=False)),
        SubtypeTask(),
    )


def labels_of(cohort: Cohort, cases: tuple[str, ...]) -> Counter:
    return Counter(cohort.targets.loc[list(cases), "label"])


@st.composite
def labels_and_folds(draw) -> tuple[list[str], int]:
    folds = draw(st.integers(3, 6))
    sizes = draw(st.lists(st.integers(folds, 25), min_size=2, max_size=4))
    labels = draw(st.permutations([f"c{i}" for i, size in enumerate(sizes) for _ in range(size)]))
    return list(labels), folds


@settings(max_examples=60)
@given(drawn=labels_and_folds(), seed=st.integers(0, 99))
def test_every_patient_is_in_test_once_and_in_val_once_and_in_one_part_of_each_fold(drawn, seed):
    cohort, count = people(drawn[0]), drawn[1]
    folds = make_folds(cohort, count, seed)
    assert [fold.index for fold in folds] == list(range(count))
    for part in ("val", "test"):
        assert sorted(case for fold in folds for case in fold.parts[part]) == sorted(cohort.slides)
    for fold in folds:
        assert sorted(fold.train + fold.val + fold.test) == sorted(cohort.slides)


@settings(max_examples=60)
@given(drawn=labels_and_folds(), seed=st.integers(0, 99))
def test_each_class_differs_by_at_most_one_patient_between_the_tests_of_two_folds(drawn, seed):
    cohort, count = people(drawn[0]), drawn[1]
    tests = [labels_of(cohort, fold.test) for fold in make_folds(cohort, count, seed)]
    for name in cohort.classes:
        sizes = [test[name] for test in tests]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40)
@given(seed=st.integers(0, 99), shuffle=st.randoms(use_true_random=False))
def test_the_seed_decides_and_the_order_of_the_table_does_not(seed, shuffle):
    cohort = people(["a", "b", "a"] * 10)
    rows = list(cohort.slides)
    shuffle.shuffle(rows)
    other = Cohort(cohort.slides, cohort.targets.loc[rows], cohort.classes, frozenset(), {}, SubtypeTask())
    assert make_folds(other, 5, seed) == make_folds(cohort, 5, seed)


def test_other_seeds_are_other_folds():
    cohort = people(["a", "b"] * 15)
    assert len({make_folds(cohort, 3, seed)[0] for seed in range(5)}) == 5


@settings(max_examples=40)
@given(
    sites=st.lists(st.integers(0, 11), min_size=60, max_size=60).filter(lambda sites: len(set(sites)) > 9),
    seed=st.integers(0, 9),
)
def test_whole_sites_are_in_one_part(sites, seed):
    cohort = people(["a", "b"] * 30, [str(site) for site in sites])
    try:
        folds = make_folds(cohort, 3, seed, keep_sites_together=True)
    except CohortError as error:
        assert "whole sites leave one of 3 blocks without" in error.what  # noqa: PT017 - a draw may not allow it
        reject()  # Hypothesis fails the test if it must reject most draws
    for fold in folds:
        parts = [{cohort.sites[case] for case in cases} for cases in fold.parts.values()]
        assert sum(map(len, parts)) == len(set(sites))
        assert all(set(labels_of(cohort, cases)) == {"a", "b"} for cases in fold.parts.values())


def test_events_are_dealt_evenly():
    cohort = people(["x"] * 30)
    targets = pd.DataFrame({"time": 1.0, "event": [1] * 6 + [0] * 24}, index=cohort.targets.index)
    cohort = Cohort(cohort.slides, targets, (), frozenset(), {}, SubtypeTask())
    folds = make_folds(cohort, 6, 0)
    assert [int(targets.loc[list(fold.test), "event"].sum()) for fold in folds] == [1] * 6
    with pytest.raises(CohortError, match=r"too few patients for 7 folds: observed events \(6\)"):
        make_folds(cohort, 7, 0)
    censored = Cohort(cohort.slides, targets.assign(event=0), (), frozenset(), {}, SubtypeTask())
    with pytest.raises(CohortError, match="all patients are of one stratum: censored patients"):
        make_folds(censored, 3, 0)


def test_a_class_too_rare_for_every_part_is_refused_by_name():
    with pytest.raises(CohortError, match=r"too few patients for 5 folds: b \(4\)\n"):
        make_folds(people(["a"] * 20 + ["b"] * 4), 5, 0)


def test_sites_that_cannot_be_dealt_are_refused():
    labels = ["a"] * 12 + ["b"] * 12
    with pytest.raises(CohortError, match="the site of 24 patients is unknown"):
        make_folds(people(labels), 3, 0, keep_sites_together=True)
    with pytest.raises(CohortError, match="2 sites are too few for 3 folds"):
        make_folds(people(labels, ["x", "y"] * 12), 3, 0, keep_sites_together=True)
    with pytest.raises(CohortError, match="whole sites leave one of 3 blocks without b"):
        make_folds(people(labels, list("xxxxyyyyzzzz") + ["x"] * 12), 3, 0, keep_sites_together=True)


def test_a_fold_of_three_is_one_block_each():
    (first, *_) = make_folds(people(["a", "b"] * 6), 3, 0)
    assert isinstance(first, Fold)
    assert [len(cases) for cases in first.parts.values()] == [4, 4, 4]
