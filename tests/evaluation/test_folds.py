import json

import numpy as np
import pandas as pd
import pytest

from longvit.evaluation import evaluate_predictions
from preprocessing.errors import CohortError


def test_auroc_per_fold_mean_and_pooled_of_a_hand_computed_file(subtyping_csv):
    metrics = evaluate_predictions(subtyping_csv)
    assert [fold["metrics"]["auroc"]["value"] for fold in metrics["folds"]] == pytest.approx([3 / 4, 1.0])
    assert metrics["mean"]["auroc"]["value"] == pytest.approx(7 / 8)
    assert metrics["mean"]["auroc"]["sd"] == pytest.approx(0.25 / 2**0.5)
    assert metrics["pooled"]["auroc"]["value"] == pytest.approx(8 / 9)  # LUSC .35 .8 .9 against LUAD .1 .4 .3


def test_the_control_stands_beside_every_number(subtyping_csv):
    metrics = evaluate_predictions(subtyping_csv)
    assert [fold["metrics"]["auroc"]["shuffled"] for fold in metrics["folds"]] == pytest.approx([1 / 4, 0.0])
    assert metrics["mean"]["auroc"]["shuffled"] == pytest.approx(1 / 8)
    assert metrics["pooled"]["auroc"]["shuffled"] == pytest.approx(2 / 9)  # LUSC .25 .5 .1 against LUAD .9 .4 .3
    assert all(number["shuffled"] is not None for number in metrics["pooled"].values())


def test_the_control_is_the_mean_over_shuffles(subtyping_csv, edited):
    def third_is_perfect(table):
        shuffled = table[table["shuffled"] == "0"]
        perfect = shuffled.assign(shuffled="1", p_LUAD=(shuffled["label"] == "LUAD").astype(int))
        return pd.concat([table, perfect.assign(p_LUSC=1 - perfect["p_LUAD"])])

    metrics = evaluate_predictions(edited(subtyping_csv, third_is_perfect))
    assert metrics["n_shuffles"] == 2
    assert metrics["pooled"]["auroc"]["shuffled"] == pytest.approx((2 / 9 + 1) / 2)


def test_a_patient_with_two_slides_counts_once(subtyping_csv):
    metrics = evaluate_predictions(subtyping_csv)
    assert (metrics["n_patients"], metrics["n_slides"]) == (6, 7)
    assert metrics["class_counts"] == {"LUAD": 3, "LUSC": 3}
    assert metrics["pooled"]["accuracy"]["value"] == pytest.approx(5 / 6)  # of slides it would be 5 of 7


def test_the_pooled_c_index_compares_within_folds_only(survival_csv):
    metrics = evaluate_predictions(survival_csv)
    assert [fold["metrics"]["c_index"]["value"] for fold in metrics["folds"]] == pytest.approx([3 / 5, 1.0])
    assert metrics["pooled"]["c_index"]["value"] == pytest.approx(5 / 7)
    assert metrics["n_events"] == 5
    assert [fold["n_events"] for fold in metrics["folds"]] == [3, 2]


def near(part):
    """The same but for the last bits of its numbers, which Cox fits on another scale and processor leave open."""
    if isinstance(part, dict):
        return {key: near(value) for key, value in part.items()}
    if isinstance(part, list):
        return [near(value) for value in part]
    return pytest.approx(part, rel=1e-9) if isinstance(part, float) else part


def test_another_scale_of_one_folds_risks_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    patients = [f"P{i}" for i in range(40)]
    table = pd.DataFrame({"patient_id": patients, "slide_id": patients, "fold": np.arange(40) % 2, "split": "test"})
    table = table.assign(time=rng.exponential(20, 40), event=rng.integers(0, 2, 40), risk=rng.normal(size=40))
    table.to_csv(tmp_path / "one.csv", index=False)
    table.assign(risk=table["risk"] * (1 + 8 * table["fold"]) - 50 * table["fold"]).to_csv(tmp_path / "other.csv")
    metrics, rescaled = evaluate_predictions(tmp_path / "one.csv"), evaluate_predictions(tmp_path / "other.csv")
    for part in ("folds", "mean", "pooled"):
        assert rescaled[part] == near(metrics[part])


def test_intervals_hold_their_number(subtyping_csv, survival_csv):
    for path, name in ((subtyping_csv, "auroc"), (survival_csv, "c_index")):
        metrics = evaluate_predictions(path)
        for number in (metrics["pooled"][name], metrics["mean"][name]):
            assert number["low"] < number["value"] <= number["high"] <= 1


def test_a_fold_of_one_class_has_no_numbers_but_a_reason(subtyping_csv, edited):
    path = edited(subtyping_csv, lambda table: table[table["patient_id"] != "F"])
    metrics = evaluate_predictions(path)
    assert metrics["folds"][1]["metrics"] is None
    assert "one class" in metrics["folds"][1]["reason"]
    assert metrics["pooled"]["auroc"]["value"] == pytest.approx(5 / 6)
    assert metrics["mean"]["auroc"]["value"] == pytest.approx(3 / 4)
    assert any(sentence.startswith("Fold 1 has no numbers") for sentence in metrics["warnings"])


def test_a_fold_without_events_has_no_numbers_but_pooled_does(survival_csv, edited):
    path = edited(survival_csv, lambda table: table.assign(event=table["event"].where(table["fold"] == "0", "0")))
    metrics = evaluate_predictions(path)
    assert metrics["folds"][1]["metrics"] is None
    assert "no patient has an event (n = 3)" in metrics["folds"][1]["reason"]
    assert metrics["pooled"]["c_index"]["value"] == pytest.approx(3 / 5)


def test_a_file_without_any_number_is_refused(survival_csv, edited):
    path = edited(survival_csv, lambda table: table.assign(event="0"))
    with pytest.raises(CohortError, match="no patient has an event"):
        evaluate_predictions(path)


def test_an_absent_split_is_refused(survival_csv):
    with pytest.raises(CohortError, match="no predictions of split `val`, only of test"):
        evaluate_predictions(survival_csv, split="val")


def test_the_order_of_rows_does_not_matter(subtyping_csv, edited):
    reversed_rows = evaluate_predictions(edited(subtyping_csv, lambda table: table[::-1]))
    metrics = evaluate_predictions(subtyping_csv)
    for part in ("folds", "mean", "pooled", "class_counts"):
        assert reversed_rows[part] == metrics[part]


def test_the_content_is_json_and_the_same_twice(survival_csv):
    text = json.dumps(evaluate_predictions(survival_csv), allow_nan=False)
    assert text == json.dumps(evaluate_predictions(survival_csv), allow_nan=False)


def warned(path, split="test"):
    return " ".join(evaluate_predictions(path, split)["warnings"])


def test_what_a_reader_must_know_is_said(subtyping_csv, survival_csv, edited):
    assert "no shuffled-label control" in warned(survival_csv)
    assert "no shuffled-label control" not in warned(subtyping_csv)
    assert "reaches 0.5" in warned(survival_csv)
    validation = edited(subtyping_csv, lambda table: table.assign(split="val"))
    assert "it is unknown whether models were selected on them" in warned(validation, "val")
    fewer = edited(subtyping_csv, lambda table: table.drop(index=7))
    assert "not predicted for the same patients" in warned(fewer)


def test_a_control_as_good_as_the_model_is_said(subtyping_csv, edited):
    def tell_apart(table):
        certain = (table["label"] == "LUAD").astype(int)
        return table.assign(p_LUAD=certain, p_LUSC=1 - certain)

    said = warned(edited(subtyping_csv, tell_apart))
    assert (
        "shuffled labels are as good as the model, or better: their pooled AUROC is 1.000, the model's is 1.000" in said
    )


def test_patients_held_out_by_two_folds_are_said(survival_csv):
    survival_csv.write_text(survival_csv.read_text() + "A,A-1,1,test,2,1,0.5,\n")
    metrics = evaluate_predictions(survival_csv)
    assert metrics["n_patients"] == 7
    assert metrics["n_slides"] == 7
    assert sum(group["n"] for group in metrics["risk_groups"]) == 7
    (sentence,) = (sentence for sentence in metrics["warnings"] if "held out by several folds" in sentence)
    assert "the log-rank test and Cox regression count each once" in sentence


def test_copies_of_a_hold_out_change_neither_the_log_rank_test_nor_the_groups(survival_csv, edited):
    def copies(table: pd.DataFrame) -> pd.DataFrame:
        number = table["fold"].astype(int) * 2
        return pd.concat([table.assign(fold=(number + copy).astype(str)) for copy in (0, 1)])

    once, twice = evaluate_predictions(survival_csv), evaluate_predictions(edited(survival_csv, copies))
    assert twice["pooled"]["logrank_p"]["value"] == pytest.approx(once["pooled"]["logrank_p"]["value"], rel=1e-12)
    assert twice["risk_groups"] == once["risk_groups"]
    assert (twice["n_patients"], twice["n_slides"], twice["n_events"]) == (7, 7, 5)


def test_a_class_absent_from_one_of_three_class_folds_is_said(subtyping_csv, edited):
    three = edited(subtyping_csv, lambda table: table.assign(p_SCLC="0"))
    assert "Fold 0 holds out no SCLC" in warned(three)


def test_intervals_stand_beside_every_number_but_the_p_value(tmp_path):
    rng = np.random.default_rng(0)
    risk, patients = rng.normal(size=90), [f"P{i}" for i in range(90)]
    table = pd.DataFrame({"patient_id": patients, "slide_id": patients, "fold": np.arange(90) % 3, "split": "test"})
    table = table.assign(time=rng.exponential(np.exp(-risk)), event=rng.integers(0, 2, 90), risk=risk)
    table.to_csv(tmp_path / "predictions.csv", index=False)
    metrics = evaluate_predictions(tmp_path / "predictions.csv")
    for place in (metrics["pooled"], metrics["mean"], metrics["folds"][0]["metrics"]):
        for name, number in place.items():
            assert (number["low"] is None) == (name == "logrank_p"), name
            assert name == "logrank_p" or number["low"] <= number["value"] <= number["high"], name
    assert metrics["bootstrap"]["resamples"] == 2000
    assert not any("no better than Kaplan-Meier" in sentence for sentence in metrics["warnings"])
    table.assign(risk=-(risk**2)).to_csv(tmp_path / "noise.csv", index=False)
    assert "no better than Kaplan-Meier" in warned(tmp_path / "noise.csv")
    series = metrics["over_time"]
    assert len(series["times"]) == len(series["td_auc"]) == len(series["brier"]) == len(series["brier_km"])
    assert [group["n"] for group in metrics["risk_groups"]] == [45, 45]
    assert metrics["risk_groups"][0]["median_time"] > metrics["risk_groups"][1]["median_time"]


def test_a_control_without_any_number_is_no_control(survival_csv):
    lines = ["A,A-1,0,test,2,1,0.9,0", "B,B-1,0,test,5,1,0.1,0"]
    censored = survival_csv.read_text().replace("A,A-1,0,test,2,1", "A,A-1,0,test,2,0")
    survival_csv.write_text(censored + lines[0].replace("2,1,", "2,0,") + "\n")
    assert evaluate_predictions(survival_csv)["pooled"]["c_index"]["shuffled"] is None


def test_the_confusion_matrix_and_reliability_count_patients(subtyping_csv):
    metrics = evaluate_predictions(subtyping_csv)
    assert metrics["confusion"] == [[3, 0], [1, 2]]
    assert sum(one["n"] for one in metrics["reliability"]) == 6


def test_folds_of_one_patient_have_a_reason_in_place_of_numbers(survival_csv):
    survival_csv.write_text(survival_csv.read_text() + "H,H-1,2,test,4,1,3,\n")
    metrics = evaluate_predictions(survival_csv)
    assert metrics["folds"][2]["metrics"] is None
    assert "each fold holds out one" in metrics["folds"][2]["reason"]
    assert metrics["pooled"]["c_index"]["value"] == pytest.approx(5 / 7)


@pytest.mark.parametrize("patients", ["A", "AE"])
def test_one_patient_and_leave_one_out_are_refused_in_words(survival_csv, edited, patients):
    with pytest.raises(CohortError, match="no two patients can be compared: each fold holds out one"):
        evaluate_predictions(edited(survival_csv, lambda table: table[table["patient_id"].isin(list(patients))]))


@pytest.mark.parametrize(
    ("rows", "folds", "says"),
    [(4_001, 1, "4,001 patients in fold 0, more than 4,000"), (1_001, 1_001, "1,001 folds, more than 1,000")],
)
def test_more_than_can_be_resampled_is_refused(tmp_path, rows, folds, says):
    ids = [f"P{i}" for i in range(rows)]
    table = pd.DataFrame({"patient_id": ids, "slide_id": ids, "fold": np.arange(rows) % folds, "split": "test"})
    table.assign(time=1, event=1, risk=1).to_csv(tmp_path / "predictions.csv", index=False)
    with pytest.raises(CohortError, match=says):
        evaluate_predictions(tmp_path / "predictions.csv")
