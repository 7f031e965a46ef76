import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter

from longvit.evaluation.survival import high_risk
from longvit.viewer.heldout import HeldOutPredictions


@pytest.fixture
def held_out(planted) -> HeldOutPredictions:
    return HeldOutPredictions.read(planted.run / "predictions.csv")


def test_the_curves_are_kaplan_meiers_of_the_two_risk_groups(held_out):
    rows, curves = held_out.rows, held_out.document()["curves"]
    high = high_risk(rows["risk"], rows["fold"])
    assert [curve["label"] for curve in curves] == ["low risk", "high risk"]
    for curve, chosen in zip(curves, (~high, high), strict=True):
        fit = KaplanMeierFitter().fit(rows.loc[chosen, "time"], rows.loc[chosen, "event"])
        np.testing.assert_allclose(curve["share"], fit.survival_function_at_times(curve["time"]), atol=1e-4)
        assert curve["n"] == chosen.sum()
        assert len(curve["censored"]) == (rows.loc[chosen, "event"] == 0).sum()


def test_places_run_from_the_lowest_risk_of_a_fold_to_the_highest(held_out):
    assert held_out.rows["fold"].nunique() == 2
    for _, fold in held_out.rows.groupby("fold"):
        ordered = fold.sort_values("risk")["place"]
        np.testing.assert_allclose(ordered, np.linspace(0, 1, len(fold)))


def test_a_patient_is_found_by_any_of_the_slides(held_out):
    first, second = held_out.patient("P02-0"), held_out.patient("P02-1")
    assert first == second
    assert first["patient_id"] == "P02"


def test_a_patient_whom_no_fold_held_out_has_no_place(held_out):
    assert held_out.patient("P11-0") is None


def write(tmp_path, rows) -> HeldOutPredictions:
    pd.DataFrame(rows).to_csv(tmp_path / "predictions.csv", index=False)
    return HeldOutPredictions.read(tmp_path / "predictions.csv")


def test_slides_that_were_read_as_one_sequence_all_lead_to_their_patient(tmp_path):
    row = {"patient_id": "P", "slide_id": "A;B", "fold": 0, "split": "test", "time": 3, "event": 1, "risk": 0.2}
    found = write(tmp_path, [row, row | {"patient_id": "Q", "slide_id": "C", "risk": 0.1}])
    assert [found.patient(slide)["patient_id"] for slide in "ABC"] == ["P", "P", "Q"]


def test_subtyping_gives_probabilities_and_the_label_and_val_where_there_is_no_test(tmp_path):
    row = {"patient_id": "P", "slide_id": "A", "fold": 0, "split": "val", "label": "X", "p_X": 0.25, "p_Y": 0.75}
    found = write(tmp_path, [row, row | {"patient_id": "Q", "slide_id": "B", "label": "Y"}])
    assert found.document() == {"task": "subtyping", "classes": ["X", "Y"]}
    assert found.patient("A") == {
        "patient_id": "P",
        "folds": [0],
        "label": "X",
        "probabilities": {"X": 0.25, "Y": 0.75},
    }


def test_a_patient_of_several_folds_is_on_one_curve_once(tmp_path):
    row = {"split": "test", "time": 3, "event": 1, "time_unit": "days"}
    risks = {0: {"P": 0.1, "Q": 0.3, "R": 0.2}, 1: {"P": 5.0, "Q": 1.0}}
    rows = [
        row | {"patient_id": name, "slide_id": name, "fold": fold, "risk": risk}
        for fold, of_fold in risks.items()
        for name, risk in of_fold.items()
    ]
    found = write(tmp_path, rows)
    document = found.document()
    assert document["time_unit"] == "days"
    assert sum(curve["n"] for curve in document["curves"]) == 3
    for name in "PQR":
        assert found.patient(name)["high"] == found.rows.set_index("patient_id").loc[[name], "high"].all()


def test_ids_that_look_like_missing_values_are_names(tmp_path):
    row = {"fold": 0, "split": "test", "time": 3, "event": 1, "risk": 0.2}
    ids = [{"patient_id": name, "slide_id": name} for name in ("NA", "null")]
    assert write(tmp_path, [row | one for one in ids]).patient("NA")["patient_id"] == "NA"
