import re

import pytest
from matplotlib import rcParams

from longvit.evaluation.folds import evaluate_folds
from longvit.evaluation.predictions import read_predictions
from longvit.evaluation.report.figures import draw_figures
from longvit.evaluation.report.survival_figures import ratio_ticks


def drawings(path):
    predictions = read_predictions(path)
    return {one.name: one for one in draw_figures(predictions, evaluate_folds(predictions).metrics)}


def words(svg: str) -> list[str]:
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def test_each_task_has_its_figures(subtyping_csv, survival_csv):
    assert list(drawings(subtyping_csv)) == ["folds", "roc", "confusion", "calibration"]
    assert list(drawings(survival_csv)) == ["folds", "kaplan_meier", "over_time", "hazard_ratios"]


def test_the_confusion_matrix_counts_patients(subtyping_csv):
    found = words(drawings(subtyping_csv)["confusion"].svg)
    assert [found.count(count) for count in ("3", "0", "1", "2")] == [1, 1, 1, 1]
    assert "33%" in found


def test_numbers_at_risk_stand_beneath_kaplan_meier(survival_csv):
    found = words(drawings(survival_csv)["kaplan_meier"].svg)
    assert "At risk" in found
    assert {"low risk (n = 4)", "high risk (n = 3)"} <= set(found)
    assert {"4", "3"} <= set(found)  # at risk at month 0
    assert any(text.startswith("log-rank p = ") for text in found)


def test_a_fold_without_a_number_says_so(subtyping_csv, edited):
    path = edited(subtyping_csv, lambda table: table[table["patient_id"] != "F"])
    assert "not defined" in words(drawings(path)["folds"].svg)


def test_three_classes_have_three_curves(subtyping_csv, edited):
    roc = drawings(edited(subtyping_csv, lambda table: table.assign(p_SCLC="0")))["roc"]
    assert "one class against the rest" in " ".join(words(roc.svg))


@pytest.mark.parametrize("name", ["subtyping_csv", "survival_csv"])
def test_figures_are_the_same_twice_and_share_no_ids(request, name):
    path = request.getfixturevalue(name)
    before = dict(rcParams)
    first, second = drawings(path), drawings(path)
    assert first == second
    ids = [one for drawing in first.values() for one in re.findall(r' id="([^"]*)"', drawing.svg)]
    assert len(ids) == len(set(ids))
    assert dict(rcParams) == before


@pytest.mark.parametrize("unit", ["days", "years"])
def test_axes_of_time_name_the_unit(survival_csv, edited, unit):
    drawn = drawings(edited(survival_csv, lambda table: table.assign(time_unit=unit)))
    for name in ("kaplan_meier", "over_time"):
        found = words(drawn[name].svg)
        assert f"Time, {unit}" in found
        assert not {"Months", "Days", "Years"} & set(found)


@pytest.mark.parametrize(
    ("low", "high"), [(0.04, 60.0), (0.69, 1.61), (0.97, 1.04), (0.5, 3.0), (0.9, 12.0), (0.05, 1.1), (0.999, 1.0001)]
)
def test_hazard_ratios_have_ticks_within_their_range(low, high):
    ticks = ratio_ticks(low, high)
    assert 4 <= len(ticks) <= 20
    assert 1 in ticks
    assert ticks == sorted(ticks)
    assert all(low <= tick <= high for tick in ticks)


def test_names_of_classes_are_no_formulas(subtyping_csv, edited):
    odd = lambda table: table.rename(columns={"p_LUSC": r"p_$\frac$"}).replace({"label": {"LUSC": r"$\frac$"}})
    assert r"$\frac$" in words(drawings(edited(subtyping_csv, odd))["confusion"].svg)


def test_captions_name_nothing_that_is_not_drawn(survival_csv, subtyping_csv, edited):
    one_fold = drawings(edited(survival_csv, lambda table: table[table["fold"] == "0"]))
    assert "shuffled" not in one_fold["folds"].caption
    assert "Brier" not in one_fold["over_time"].caption
    assert "with all others" not in one_fold["hazard_ratios"].caption
    assert "shuffled" in drawings(subtyping_csv)["folds"].caption
    three = lambda table: table[table["shuffled"] == ""].assign(p_SCLC="0")
    assert "shuffled" not in drawings(edited(subtyping_csv, three))["roc"].caption
