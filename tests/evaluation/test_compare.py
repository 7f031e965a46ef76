import pytest

from longvit.evaluation.compare import compared, require_same_patients
from longvit.evaluation.folds import evaluate_folds
from longvit.evaluation.predictions import read_predictions
from longvit.evaluation.run_files import baseline_predictions, read_notes
from preprocessing.errors import CohortError


def pair(path, edited, change):
    return read_predictions(path), read_predictions(edited(path, change))


def difference(ours, other) -> dict:
    (entry,) = compared(evaluate_folds(ours), {"other": evaluate_folds(other)})
    return entry["difference"]["pooled"]


def test_a_model_does_not_differ_from_itself(survival_csv):
    ours = read_predictions(survival_csv)
    found = difference(ours, ours)["c_index"]
    assert found == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_the_difference_is_ours_minus_the_other(survival_csv, edited):
    reverse = lambda table: table.assign(risk=(-table["risk"].astype(float)).astype(str))
    found = difference(*pair(survival_csv, edited, reverse))
    assert found["c_index"]["value"] == pytest.approx(5 / 7 - 2 / 7)
    assert "logrank_p" not in found


def test_pairing_leaves_less_doubt_than_two_intervals(subtyping_csv, edited):
    def almost(table):
        table.loc[0, ["p_LUAD", "p_LUSC"]] = ("0.88", "0.12")
        return table

    ours, other = pair(subtyping_csv, edited, almost)
    found = difference(ours, other)["auroc"]
    assert found["low"] == found["high"] == 0  # the ranks are the same in every resample
    assert evaluate_folds(other).metrics["pooled"]["auroc"]["low"] < 0.8


def test_a_clear_difference_has_a_small_p(survival_csv, tmp_path):
    lines = ["patient_id,slide_id,fold,split,time,event,risk"]
    rows = [(f"P{i}", i + 1, -i, i % 7) for i in range(60)]
    for name, column in (("good", 2), ("bad", 3)):
        text = [f"{row[0]},{row[0]},0,test,{row[1]},1,{row[column]}" for row in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines + text))
    found = difference(*(read_predictions(tmp_path / f"{name}.csv") for name in ("good", "bad")))["c_index"]
    assert found["p"] == pytest.approx(2 / 2001)
    assert found["low"] > 0.2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table[table["patient_id"] != "G"], r"it lacks: G \(fold 1\)"),
        (lambda table: table.replace({"G": "H", "G-1": "H-1"}), r"it lacks: G \(fold 1\); it adds: H \(fold 1\)"),
        (lambda table: table.assign(fold=table["fold"].replace("1", "2")), r"it lacks: E \(fold 1\), F \(fold 1\)"),
        (lambda table: table.assign(time=table["time"].replace("8", "9")), r"`time, event` differs for G \(fold 1\)"),
    ],
)
def test_other_patients_are_refused_with_a_list(survival_csv, edited, change, says):
    ours, other = pair(survival_csv, edited, change)
    with pytest.raises(CohortError, match=says):
        require_same_patients(ours, other, "test", "other")


def test_another_question_is_refused(survival_csv, subtyping_csv):
    with pytest.raises(CohortError, match="different questions: survival and subtyping LUAD, LUSC"):
        require_same_patients(read_predictions(survival_csv), read_predictions(subtyping_csv), "test", "other")


def test_the_order_of_rows_does_not_matter(survival_csv, edited):
    ours, other = pair(survival_csv, edited, lambda table: table[::-1])
    require_same_patients(ours, other, "test", "other")
    assert difference(ours, other)["c_index"]["p"] == 1.0


def test_baselines_that_were_trained_beside_the_model_are_found_by_name(tmp_path):
    for name in ("mean", "abmil"):
        (tmp_path / "baselines" / name).mkdir(parents=True)
        (tmp_path / "baselines" / name / "predictions.csv").write_text("")
    (tmp_path / "baselines" / "tiles").mkdir()
    found = baseline_predictions(tmp_path / "predictions.csv")
    assert list(found) == ["abmil", "mean"]
    (tmp_path / "baselines" / "mean" / "notes.txt").write_text("a linear head\nof 60 epochs\n")
    assert read_notes(found["mean"]) == ["a linear head", "of 60 epochs"]
    assert read_notes(found["abmil"]) == []


def test_another_unit_of_time_is_refused(survival_csv, edited):
    ours, other = pair(survival_csv, edited, lambda table: table.assign(time_unit="days"))
    with pytest.raises(CohortError, match="the times are in different units: months and days"):
        require_same_patients(ours, other, "test", "other")
