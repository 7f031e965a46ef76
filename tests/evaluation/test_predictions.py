import json

import pytest

from longvit.evaluation.predictions import read_predictions
from preprocessing.errors import CohortError


def test_slides_of_a_patient_are_averaged_within_the_fold(subtyping_csv):
    rows = read_predictions(subtyping_csv).part("test").set_index("patient_id")
    assert rows.loc["C", ["p_LUAD", "p_LUSC"]].tolist() == pytest.approx([0.65, 0.35])
    assert rows.loc["C", "n_slides"] == 2
    assert len(rows) == 6


def test_shuffled_rows_are_kept_apart(subtyping_csv):
    predictions = read_predictions(subtyping_csv)
    assert predictions.shuffles("test") == [0]
    assert predictions.part("test", shuffled=0).set_index("patient_id").loc["A", "p_LUSC"] == 0.9
    assert predictions.part("test").set_index("patient_id").loc["A", "p_LUSC"] == 0.1


@pytest.mark.parametrize("mark", ["", "-1"])
def test_the_column_shuffled_is_optional_and_minus_one_means_real(survival_csv, edited, mark):
    absent = edited(survival_csv, lambda table: table.drop(columns="shuffled"))
    rows = read_predictions(absent).part("test")
    marked = edited(survival_csv, lambda table: table.assign(shuffled=mark))
    assert read_predictions(marked).part("test").equals(rows)


def test_task_and_classes_come_from_the_header(subtyping_csv, survival_csv):
    assert read_predictions(subtyping_csv).classes == ("LUAD", "LUSC")
    assert read_predictions(survival_csv).task == "survival"


@pytest.mark.parametrize(
    ("finding", "passes"),
    [
        ({"category": "leak", "level": "accepted", "names": ["C"]}, True),
        ({"category": "leak", "level": "accepted", "names": ["D"]}, False),
        ({"category": "leak", "level": "error", "names": ["C"]}, False),
        ({"category": "duplicate", "level": "accepted", "names": ["C"]}, False),
    ],
)
def test_a_patient_in_two_parts_is_let_pass_only_where_the_audit_says_it_was_accepted(
    subtyping_csv, edited, finding, passes
):
    of_c = lambda table: table["split"].mask((table["slide_id"] == "C-2") & (table["shuffled"] == ""), "val")
    path = edited(subtyping_csv, lambda table: table.assign(split=of_c(table)))  # the other slide of C is in test
    path.with_name("audit.json").write_text(json.dumps({"findings": [finding | {"what": "in both"}]}))
    if passes:
        predictions = read_predictions(path)
        assert [(predictions.part(split)["patient_id"] == "C").sum() for split in ("val", "test")] == [1, 1]
    else:
        with pytest.raises(CohortError, match="is in two parts of one fold"):
            read_predictions(path)


def test_times_that_cannot_be_months_are_asked_about(survival_csv, edited):
    in_days = lambda table: table.assign(time=[str(365 * i) for i in range(len(table))])
    says = "without a column time_unit times are months: a longest follow-up of 2190 months and a median of 1095"
    with pytest.raises(CohortError, match=says) as asked:
        read_predictions(edited(survival_csv, in_days))
    assert asked.value.fix.startswith("add a column time_unit with days in every row")
    for unit in ("days", "months"):  # the user has answered
        assert (
            read_predictions(edited(survival_csv, lambda t, u=unit: in_days(t).assign(time_unit=u))).time_unit == unit
        )


def test_slides_that_were_read_as_one_sequence_are_all_counted(survival_csv, edited):
    joined = edited(survival_csv, lambda table: table.replace({"slide_id": {"A-1": "A-1;A-2;A-3"}}))
    assert read_predictions(joined).part("test")["n_slides"].tolist() == [3, 1, 1, 1, 1, 1, 1]
