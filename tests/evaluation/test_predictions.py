import json
import re

import pytest

from longvit.evaluation.predictions import read_predictions
from preprocessing.errors import CohortError

IDENTITY = "patient_id,slide_id,fold,split"


def put(line: int, column: str, value: str):
    """Write `value` into a line of the file, counted as an editor counts: the header is line 1."""

    def change(table):
        table.loc[line - 2, column] = value
        return table

    return change


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
    ("change", "says", "where"),
    [
        (put(3, "p_LUSC", "1.4"), "`p_LUSC` is not a probability: '1.4'", "column p_LUSC, line 3"),
        (put(3, "p_LUSC", "nan"), "`p_LUSC` is not a number: 'nan'", "column p_LUSC, line 3"),
        (put(3, "p_LUSC", "0.2"), "probabilities do not sum to 1", "line 3"),
        (put(3, "label", "SCLC"), "`label` is not one of the classes: 'SCLC'", "column label, line 3"),
        (put(3, "fold", "one"), "`fold` is not a number: 'one'", "column fold, line 3"),
        (put(3, "fold", "0.5"), "`fold` is not a whole number", "column fold, line 3"),
        (put(3, "fold", "1e300"), "`fold` is not a whole number from 0 to 999999: '1e300'", "column fold, line 3"),
        (put(3, "fold", "-1"), "`fold` is not a whole number", "column fold, line 3"),
        (put(3, "shuffled", "1e300"), "`shuffled` is no number of a permutation", "column shuffled, line 3"),
        (put(3, "slide_id", "A\x1b[31m"), "`slide_id` has control characters: 'A\\x1b[31m'", "column slide_id, line 3"),
        (put(3, "p_LUSC", "0_1"), "`p_LUSC` is not a number: '0_1'", "column p_LUSC, line 3"),
        (put(3, "label", "x" * 1000), f"is not one of the classes: '{'x' * 200}...'", "column label, line 3"),
        (put(3, "split", "Test"), "`split` is not train, val or test: 'Test'", "column split, line 3"),
        (put(3, "shuffled", "-2"), "`shuffled` is no number of a permutation", "column shuffled, line 3"),
        (put(3, "patient_id", " "), "`patient_id` is empty", "column patient_id, line 3"),
        (put(5, "label", "LUAD"), "`label` differs between rows of one patient", "column label, lines 4, 5"),
        (put(5, "split", "train"), "is in two parts of one fold", "column patient_id, lines 4, 5"),
        (put(5, "slide_id", "C-1"), "`slide_id` is predicted twice in one fold: 'C-1'", "column slide_id, line 5"),
        (put(5, "slide_id", "A-1"), "`slide_id` belongs to two patients", "column slide_id, lines 2, 5"),
    ],
)
def test_a_bad_value_of_subtyping_is_named_with_its_line(subtyping_csv, edited, change, says, where):
    with pytest.raises(CohortError, match=re.escape(says)) as caught:
        read_predictions(edited(subtyping_csv, change))
    assert where in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put(4, "event", "2"), "`event` is neither 0 nor 1: '2'"),
        (put(4, "event", ""), "`event` is not a number: ''"),
        (put(4, "time", "-3"), "`time` is before the start of observation: '-3'"),
        (put(4, "risk", "inf"), "`risk` is not a number: 'inf'"),
        (put(4, "risk", "-1e300"), "`risk` is beyond 1e+100: '-1e300'"),
        (put(4, "time", "1.7e308"), "`time` is more than 1,000,000, which is no follow-up: '1.7e308'"),
        (lambda table: put(4, "time_unit", "")(table.assign(time_unit="days")), "`time_unit` differs between rows: ''"),
        (lambda table: table.assign(time_unit="weeks"), "`time_unit` is not days, months or years: 'weeks'"),
        (
            lambda table: put(4, "time_unit", "days")(table.assign(time_unit="years")),
            "`time_unit` differs between rows",
        ),
        (put(4, "patient_id", "A"), "`time` differs between rows of one patient"),
    ],
)
def test_a_bad_value_of_survival_is_named(survival_csv, edited, change, says):
    with pytest.raises(CohortError, match=re.escape(says)):
        read_predictions(edited(survival_csv, change))


def test_all_problems_are_said_at_once(subtyping_csv, edited):
    def spoil(table):
        return put(6, "fold", "x")(put(4, "split", "holdout")(put(3, "label", "SCLC")(table)))

    with pytest.raises(CohortError, match="3 problems") as caught:
        read_predictions(edited(subtyping_csv, spoil))
    for line in ("column label, line 3", "column split, line 4", "column fold, line 6"):
        assert line in str(caught.value)


def test_a_patient_may_train_one_fold_and_test_another(survival_csv, edited):
    other_fold = edited(survival_csv, put(6, "patient_id", "E"))  # E is tested in fold 1
    text = other_fold.read_text() + "E,E-1,0,train,1,1,3,\n"
    other_fold.write_text(text)
    assert len(read_predictions(other_fold).part("test")) == 7


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
    path = edited(subtyping_csv, put(5, "split", "val"))  # C-2 of C, whose other slide is in test
    path.with_name("audit.json").write_text(json.dumps({"findings": [finding | {"what": "in both"}]}))
    if passes:
        predictions = read_predictions(path)
        assert [(predictions.part(split)["patient_id"] == "C").sum() for split in ("val", "test")] == [1, 1]
    else:
        with pytest.raises(CohortError, match="is in two parts of one fold"):
            read_predictions(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        ("patient_id,slide_id,fold,split,label,p_a,p_b\n", "no rows"),
        ("patient_id,slide_id,fold\nA,A,0\n", "task is not clear"),
        ("patient_id,fold,time,risk\nA,0,1,2\n", "columns are missing: `slide_id`, `split`, `event`"),
        ("patient_id,slide_id,fold,split,label,p_a\nA,A,0,test,a,1\n", "two or more `p_<class>`"),
        ("patient_id,slide_id,fold,split,label,p_a,p_b,time,event,risk\n1,1,0,test,a,0,1,1,1,1\n", "two tasks"),
        ("patient_id,slide_id,fold,split,time,event,risk\nA,A,0,test,1,1\n", "7 values that the header names"),
        ("risk,risk\n1,2\n", "columns appear twice: risk"),
        (f"{IDENTITY},label,p_a,p_\nA,A,0,test,a,1,0\n", "a class has no name"),
        (f"{IDENTITY},label,p_a,p_b\x1b\nA,A,0,test,a,1,0\n", "one with control characters: 'b\\x1b'"),
        (f"{IDENTITY},label,p_a,p_{'b' * 101}\nA,A,0,test,a,1,0\n", "one of more than 100 characters"),
        (f"{IDENTITY},label,{','.join(f'p_{i}' for i in range(2000))}\nA\n", "there are 2,000 classes, more than 100"),
        (f"{IDENTITY},{','.join(f'c{i}' for i in range(1_000_000))}\nA\n", "c15 and 999984 more"),
        ("a\n" * 3_000_000, "the task is not clear"),
        (f"{IDENTITY},time,event,risk\n" + "A\n" * 250_001, "more than 250,000 rows"),
        (f"{IDENTITY},time,event,risk\n" + "x" * 200_000, "no CSV file (field larger than field limit"),
    ],
)
def test_a_table_that_is_none_of_ours_is_refused(tmp_path, text, says):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(CohortError, match=re.escape(says)):
        read_predictions(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(CohortError, match="cannot be read"):
        read_predictions(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CohortError, match="no CSV file"):
        read_predictions(tmp_path / "binary.csv")


@pytest.mark.parametrize("unit", ["days", "months", "years"])
def test_the_unit_of_times_is_a_column_and_without_it_months(survival_csv, edited, unit):
    assert read_predictions(survival_csv).time_unit == "months"
    assert read_predictions(edited(survival_csv, lambda table: table.assign(time_unit=unit))).time_unit == unit


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
    joined = edited(survival_csv, put(2, "slide_id", "A-1;A-2;A-3"))
    assert read_predictions(joined).part("test")["n_slides"].tolist() == [3, 1, 1, 1, 1, 1, 1]


def test_ties_are_those_of_the_decimal_numbers_in_the_file(survival_csv, edited):
    text = ["78.18873094883070962", "78.18873094883071", "3"]  # pandas.to_numeric is a bit off for the first
    risks = edited(survival_csv, lambda table: table.assign(risk=(text * 3)[: len(table)]))
    assert read_predictions(risks).part("test")["risk"].tolist() == [float(value) for value in (text * 3)[:7]]
