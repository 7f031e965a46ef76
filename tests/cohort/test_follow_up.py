import numpy as np
import pandas as pd
import pytest
from sksurv.nonparametric import kaplan_meier_estimator

from longvit.cohort.follow_up import describe_follow_up, implausible, reverse_kaplan_meier, turned_round
from longvit.cohort.patients import read_cohort
from longvit.config import CoxTask


@pytest.mark.parametrize(
    ("longest", "unit", "likely"),
    [
        (240, "months", "fine"),
        (720, "months", "fine"),
        (4000, "months", "days"),
        (1e5, "months", None),
        (4000, "days", "fine"),
        (39, "days", "months"),
        (1e5, "days", None),
        (12, "years", "fine"),
        (200, "years", "months"),
        (4000, "years", "days"),
    ],
)
def test_times_that_no_follow_up_has_are_found_with_the_likely_unit(longest, unit, likely):
    found = implausible(pd.Series([1.0, 2.0, longest]), unit)
    if likely == "fine":
        assert found is None
    else:
        assert found[1] == likely
        assert f"a longest follow-up of {longest:g} {unit} and a median of 2" in found[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_median_follow_up_is_that_of_the_censoring_curve(seed):
    rng = np.random.default_rng(seed)
    times = pd.Series(rng.exponential(30, 200).round(seed % 2))  # without decimals there are ties
    event = pd.Series(rng.integers(0, 2, 200))
    at, curve = kaplan_meier_estimator(event.to_numpy() == 1, times.to_numpy(), reverse=True)
    assert reverse_kaplan_meier(times, event) == at[curve <= 0.5][0]


def test_a_follow_up_is_described_in_both_kinds():
    times, event = pd.Series([1.0, 2, 3, 4, 5]), pd.Series([1, 0, 1, 0, 0])
    said = describe_follow_up(times, event, "months")
    assert said == (
        "5 patients, 2 events (40 %); median follow-up 4 months by reverse Kaplan-Meier, 4 months of patients without "
        "the event"
    )
    all_died = describe_follow_up(times, event * 0 + 1, "months")
    assert "not reached by reverse Kaplan-Meier, unknown of patients" in all_died


@pytest.mark.parametrize(
    "table", ["tcga_brca_all_clean.slim.csv", "tcga_luad_all_clean.slim.csv", "tcga_ucec_all_clean.csv.zip"]
)
def test_published_cohorts_are_not_turned_round_and_are_found_if_they_are(tcga, table):
    targets = read_cohort(tcga / "survival" / "dataset_csv" / table, CoxTask()).targets
    assert turned_round(targets["time"], targets["event"]) is None
    if "brca" not in table:  # 14 % of its patients die, at all times of follow-up: the other 86 % look like deaths
        assert "of the tenth of patients with the longest times" in turned_round(targets["time"], 1 - targets["event"])


@pytest.mark.parametrize(
    ("events", "patients", "found"), [(1, 100, True), (95, 100, True), (47, 49, False), (50, 100, False)]
)
def test_events_are_fewer_or_more_than_plausible(events, patients, found):
    event = pd.Series([1] * events + [0] * (patients - events))
    times = pd.Series(np.arange(patients, dtype=float) % 10)
    said = turned_round(times, event)
    assert (said is not None) == found
    if found:
        assert f"of {patients} patients have the event" in said
