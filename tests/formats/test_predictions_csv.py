"""Content of predictions.csv: written, read, and refused with all lines that cannot be evaluated."""

import re

import pytest

from longvit.formats.predictions_csv import TASKS, read_prediction_rows, read_prediction_table, write_predictions
from preprocessing.errors import CohortError

IDENTITY = "patient_id,slide_id,fold,split"


def put(line: int, column: str, value: str):
    """Write `value` into a line of the file, counted as an editor counts: the header is line 1."""

    def change(table):
        table.loc[line - 2, column] = value
        return table

    return change


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
        (put(3, "shuffled", "1e300"), "`shuffled` is not the number of a permutation", "column shuffled, line 3"),
        (put(3, "slide_id", "A\x1b[31m"), "`slide_id` has control characters: 'A\\x1b[31m'", "column slide_id, line 3"),
        (put(3, "p_LUSC", "0_1"), "`p_LUSC` is not a number: '0_1'", "column p_LUSC, line 3"),
        (put(3, "label", "x" * 1000), f"is not one of the classes: '{'x' * 200}...'", "column label, line 3"),
        (put(3, "split", "Test"), "`split` is not train, val or test: 'Test'", "column split, line 3"),
        (put(3, "shuffled", "-2"), "`shuffled` is not the number of a permutation", "column shuffled, line 3"),
        (put(3, "patient_id", " "), "`patient_id` is empty", "column patient_id, line 3"),
        (put(5, "label", "LUAD"), "`label` differs between rows of one patient", "column label, lines 4, 5"),
        (put(5, "split", "train"), "is in two parts of one fold", "column patient_id, lines 4, 5"),
        (put(5, "slide_id", "C-1"), "`slide_id` is predicted twice in one fold: 'C-1'", "column slide_id, line 5"),
        (put(5, "slide_id", "A-1"), "`slide_id` belongs to two patients", "column slide_id, lines 2, 5"),
    ],
)
def test_a_bad_value_of_subtyping_is_named_with_its_line(subtyping_csv, edited, change, says, where):
    with pytest.raises(CohortError, match=re.escape(says)) as caught:
        read_prediction_table(edited(subtyping_csv, change))
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
        (put(4, "time", "1.7e308"), "`time` is more than 1,000,000, longer than any follow-up: '1.7e308'"),
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
        read_prediction_table(edited(survival_csv, change))


def test_all_problems_are_said_at_once(subtyping_csv, edited):
    def spoil(table):
        return put(6, "fold", "x")(put(4, "split", "holdout")(put(3, "label", "SCLC")(table)))

    with pytest.raises(CohortError, match="3 problems") as caught:
        read_prediction_table(edited(subtyping_csv, spoil))
    for line in ("column label, line 3", "column split, line 4", "column fold, line 6"):
        assert line in str(caught.value)


def test_a_patient_may_train_one_fold_and_test_another(survival_csv, edited):
    other_fold = edited(survival_csv, put(6, "patient_id", "E"))  # E is tested in fold 1
    text = other_fold.read_text() + "E,E-1,0,train,1,1,3,\n"
    other_fold.write_text(text)
    assert len(read_prediction_table(other_fold).rows) == 8


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
        (f"{IDENTITY},label,p_a,p_b\x1b\nA,A,0,test,a,1,0\n", "or control characters: 'b\\x1b'"),
        (f"{IDENTITY},label,p_a,p_{'b' * 101}\nA,A,0,test,a,1,0\n", "a name of more than 100 characters"),
        (f"{IDENTITY},label,{','.join(f'p_{i}' for i in range(2000))}\nA\n", "there are 2,000 classes, more than 100"),
        (f"{IDENTITY},{','.join(f'c{i}' for i in range(1_000_000))}\nA\n", "c15 and 999984 more"),
        ("a\n" * 3_000_000, "the task is not clear"),
        (f"{IDENTITY},time,event,risk\n" + "A\n" * 250_001, "more than 250,000 rows"),
        (f"{IDENTITY},time,event,risk\n" + "x" * 200_000, "not a CSV file (field larger than field limit"),
    ],
)
def test_a_table_that_is_none_of_ours_is_refused(tmp_path, text, says):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(CohortError, match=re.escape(says)):
        read_prediction_table(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(CohortError, match="cannot be read"):
        read_prediction_table(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CohortError, match="not a CSV file"):
        read_prediction_table(tmp_path / "binary.csv")


@pytest.mark.parametrize("unit", ["days", "months", "years"])
def test_the_unit_of_times_is_a_column_that_may_be_absent(survival_csv, edited, unit):
    assert read_prediction_table(survival_csv).time_unit is None
    assert read_prediction_table(edited(survival_csv, lambda table: table.assign(time_unit=unit))).time_unit == unit


def test_ties_are_those_of_the_decimal_numbers_in_the_file(survival_csv, edited):
    text = ["78.18873094883070962", "78.18873094883071", "3"]  # pandas.to_numeric is a bit off for the first
    risks = edited(survival_csv, lambda table: table.assign(risk=(text * 3)[: len(table)]))
    assert read_prediction_table(risks).rows["risk"].tolist() == [float(value) for value in (text * 3)[:7]]


def test_a_leak_that_was_accepted_passes(survival_csv):
    survival_csv.write_text(survival_csv.read_text() + "A,A-2,0,val,2,1,0.9,\n")
    with pytest.raises(CohortError, match="is in two parts of one fold"):
        read_prediction_table(survival_csv, frozenset({"B"}))
    assert len(read_prediction_table(survival_csv, frozenset({"A"})).rows) == 8


VALUES = {
    **{"patient_id": "A", "slide_id": "A-1;A-2", "fold": 0, "split": "test", "shuffled": None},
    **{"label": "a", "p_a": 0.1 + 0.2, "p_b": 1 - (0.1 + 0.2)},
    **{"time": 10 / 3, "event": 1, "risk": -1e-17, "time_unit": "years"},
}


@pytest.mark.parametrize("task", TASKS)
def test_the_columns_of_every_task_are_read_as_they_were_written(tmp_path, task):
    path, columns = tmp_path / "predictions.csv", TASKS[task]
    classes = ("a", "b") if columns.has_classes else ()
    own = [*columns.truth, *columns.prediction(classes), *columns.optional]
    write_predictions(path, [{name: VALUES[name] for name in (*IDENTITY.split(","), "shuffled", *own)}])
    table = read_prediction_table(path)
    assert (table.task, table.classes, table.patient_of) == (task, classes, {"A-1": "A", "A-2": "A"})
    numbers = [*columns.truth, *columns.prediction(classes)]
    assert table.rows[numbers].to_dict("records") == [{name: VALUES[name] for name in numbers}]
    assert table.rows[["fold", "shuffled", "n_slides"]].to_numpy().tolist() == [[0, -1, 2]]
    assert table.time_unit == (VALUES["time_unit"] if "time_unit" in own else None)


def test_rows_that_are_read_and_written_again_are_the_same_bytes(tmp_path, subtyping_csv):
    write_predictions(tmp_path / "again.csv", read_prediction_rows(subtyping_csv))
    assert (tmp_path / "again.csv").read_bytes().replace(b"\r\n", b"\n") == subtyping_csv.read_bytes()
