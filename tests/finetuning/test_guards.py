import pandas as pd
import pytest

from longvit.cohort.patients import Cohort
from longvit.cohort.splits import Fold, read_splits, to_fold
from longvit.config import CoxTask, NllTask, SubtypeTask, Task
from longvit.finetuning.guards import check_fold
from preprocessing.errors import CohortError, ConfigError

CASES = ("a", "b", "c", "d", "e")
FOLD = Fold(2, CASES, ("v", "w"), ("t",))


def cohort(targets: pd.DataFrame, classes: tuple[str, ...] = ()) -> Cohort:
    return Cohort({case: [case] for case in targets.index}, targets, classes, frozenset(), {}, SubtypeTask())


def survival(train: str, val: str = "5 6") -> Cohort:
    """Times of the training patients and of two in val; a + after a time says that it is censored."""
    words = [*train.split(), *val.split(), "1"]
    times = [float(word.rstrip("+")) for word in words]
    table = pd.DataFrame({"time": times, "event": [int(not word.endswith("+")) for word in words]})
    return cohort(table.set_axis([*CASES, "v", "w", "t"]))


def check(of: Cohort, config, task: Task, **values) -> None:
    check_fold(FOLD, of, config.model_copy(update={"task": task, **values}))


@pytest.mark.parametrize(
    ("task", "train", "sentence"),
    [
        (CoxTask(), "1+ 2+ 3+ 4+ 5+", "fold 2 has 0 observed events in train, fewer than 2"),
        (CoxTask(), "1+ 2+ 3+ 4+ 5", "fold 2 has 1 observed events in train, fewer than 2"),
        (CoxTask(min_events=1), "1+ 2+ 3+ 4+ 5", "still at risk at the first event: all are censored before it"),
        (CoxTask(), "1+ 2+ 3+ 5 5", "still at risk at the first event: all are censored before it"),
        (NllTask(), "1 2 3 4+ 5+", "fold 2 has 3 observed events in train, fewer than 4, one for each bin"),
        (NllTask(bins=3), "2 2 2 2 9", "too few different times of events in train for 3 bins"),
    ],
)
def test_training_patients_from_whom_nothing_can_be_learned_are_refused(config, task, train, sentence):
    with pytest.raises(CohortError, match=sentence) as error:
        check(survival(train), config, task)
    assert error.value.where == config.splits


@pytest.mark.parametrize(
    ("name", "text", "index"),
    [
        ("folder/splits_2.csv", ",train,val,test\n0,S1,S2,S3\n", 2),
        ("folder/train_3.csv", "slide_id\nS1\n", 3),
        ("mine.csv", "slide_id,split\nS1,train\nS2,val\nS3,test\n", 0),
        ("mine.json", '{"train": ["S1"], "val": ["S2"], "test": ["S3"]}', 0),
    ],
)
def test_a_fold_is_refused_by_the_file_that_it_was_read_from(tmp_path, config, name, text, index):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    if path.name == "train_3.csv":
        (path.parent / "val_3.csv").write_text("slide_id\nS2\n")
    targets = pd.DataFrame({"time": [1.0, 2, 3], "event": [0, 1, 0]}, index=["a", "b", "c"])
    patients = Cohort({"a": ["S1"], "b": ["S2"], "c": ["S3"]}, targets, (), frozenset(), {}, CoxTask())
    source = path if path.parent == tmp_path else path.parent
    (split,) = read_splits(source)
    with pytest.raises(CohortError, match=f"fold {index} has 0 observed events in train") as error:
        check_fold(to_fold(split, patients), patients, config.model_copy(update={"splits": source, "task": CoxTask()}))
    assert error.value.where == path


@pytest.mark.parametrize(
    ("task", "train"),
    [
        (CoxTask(), "1+ 2 3 4+ 5+"),
        (CoxTask(min_events=1), "1+ 2+ 3+ 5+ 5"),  # censored when the other dies, so still at risk
        (NllTask(), "1 2 3 4 5+"),
        (NllTask(bins=2), "1 2 3+ 4+ 5+"),
        (NllTask(), "1 2 3 4 5"),
    ],
)
def test_patients_of_whom_some_can_be_compared_are_enough(config, task, train):
    assert check(survival(train), config, task) is None


def test_val_needs_an_event_only_where_it_selects_by_a_cox_loss(config):
    quiet = survival("1 2 3 4 5", val="5+ 6+")
    check(quiet, config, CoxTask())
    check(quiet, config, NllTask(), select="best_val")
    with pytest.raises(CohortError, match="fold 2 has 0 observed events in val, fewer than 1") as error:
        check(quiet, config, CoxTask(), select="best_val")
    assert "set select: last" in error.value.fix
    assert "min_events" not in error.value.fix  # which does not lower what val needs


def test_every_class_has_training_patients(config):
    labels = pd.DataFrame({"label": list("xxxxxyyy")}, index=[*CASES, "v", "w", "t"])
    with pytest.raises(CohortError, match="fold 2 has no training patient of class y, z"):
        check(cohort(labels, ("x", "y", "z")), config, SubtypeTask())


def test_the_epoch_is_not_chosen_on_the_part_that_is_reported(config):
    values = {"task": CoxTask(), "select": "best_val"}
    with pytest.raises(ConfigError, match="fold 0 has no test part"):
        check_fold(Fold(0, CASES, ("v", "w"), ()), survival("1 2 3 4 5"), config.model_copy(update=values))
