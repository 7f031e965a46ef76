from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longvit.cohort.targets import read_labels, read_times
from longvit.config import CoxTask, SubtypeTask
from preprocessing.errors import CohortError


def rows(times, statuses):
    table = pd.DataFrame({"t": times, "s": statuses}, dtype=object)
    return table.where(table.notna(), np.nan)


@pytest.mark.parametrize("word", ["1", "1.0", "true", "TRUE", "yes", "Dead", "DECEASED", "1:DECEASED", "1:Recurred/x"])
def test_words_of_an_observed_event(word):
    task = CoxTask(time_column="t", event_column="s")
    assert read_times(rows(["3"], [word]), task, Path("t.csv"))["event"].tolist() == [1]


@pytest.mark.parametrize(
    "word", ["0", "0.0", "False", "no", "Alive", "LIVING", "censored", "0:LIVING", "0:DiseaseFree"]
)
def test_words_of_a_patient_without_the_event(word):
    task = CoxTask(time_column="t", event_column="s")
    assert read_times(rows(["3"], [word]), task, Path("t.csv"))["event"].tolist() == [0]


@pytest.mark.parametrize(("word", "event"), [("1", 0), ("0", 1), ("true", 0), ("False", 1)])
def test_a_column_of_censorship_is_turned_round(word, event):
    task = CoxTask(time_column="t", censorship_column="s")
    assert read_times(rows(["3"], [word]), task, Path("t.csv"))["event"].tolist() == [event]


@pytest.mark.parametrize("word", ["Dead", "Alive", "yes", "2", "lost"])
def test_states_of_a_patient_are_not_read_as_censorship(word):
    with pytest.raises(CohortError, match=f"found 3 and {word}") as error:
        read_times(rows(["3", "3"], ["0", word]), CoxTask(time_column="t", censorship_column="s"), Path("t.csv"))
    assert str(error.value.where) == "t.csv, line 1"
    assert error.value.fix.startswith("correct the row")


def test_a_column_of_other_words_is_not_blamed_on_its_rows():
    with pytest.raises(CohortError, match="found 3 and lost") as error:
        read_times(rows(["3", "4"], ["lost", "lost"]), CoxTask(time_column="t", event_column="s"), Path("t.csv"))
    assert "task.event_column" in error.value.fix


@pytest.mark.parametrize("word", [None, "NA", "nan", "Not Reported", "unknown"])
def test_an_unknown_time_or_status_leaves_neither(word):
    task = CoxTask(time_column="t", event_column="s")
    assert read_times(rows([word, "3", "4"], ["1", word, "0"]), task, Path("t.csv")).isna().all(axis=1).tolist() == [
        1,
        1,
        0,
    ]


def test_a_time_below_0_is_missing_only_where_patients_are_left_out():
    table, task = rows(["-64", "3"], ["0", "1"]), CoxTask(time_column="t", event_column="s", missing="leave-out")
    assert read_times(table, task, Path("t.csv"))["time"].isna().tolist() == [True, False]
    with pytest.raises(CohortError, match="found -64 and 0"):
        read_times(table, task.model_copy(update={"missing": "refuse"}), Path("t.csv"))


def test_the_time_of_the_event_is_in_a_column_of_its_own():
    task = CoxTask(time_column="t", event_time_column="d", event_column="s")
    table = rows(["10", None, "7", "8"], ["Alive", "Dead", "Dead", "Alive"]).assign(d=[np.nan, "5", np.nan, "9"])
    times = read_times(table, task, Path("t.csv"))["time"]
    assert times.tolist()[:2] == [10, 5]
    assert np.isnan(times[2])  # died, nobody knows when
    assert times[3] == 8


@pytest.mark.parametrize("name", ["None", "NA", "nan", "Unknown"])
def test_a_class_may_have_the_name_of_a_missing_value(name):
    labels = read_labels(pd.DataFrame({"l": [name, "x"]}), SubtypeTask(label_column="l"), Path("t.csv"))
    assert labels["label"].tolist() == [name, "x"]
