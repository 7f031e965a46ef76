from pathlib import Path

import pandas as pd
import pytest

from longvit.cohort.patients import Cohort, read_cohort
from longvit.cohort.splits import Fold, read_splits, to_fold, write_folds
from longvit.config import CoxTask, SubtypeTask
from preprocessing.errors import CohortError


@pytest.fixture
def cases(table) -> Cohort:
    return read_cohort(table(), SubtypeTask())


def split(folder: Path, k: int = 0, **parts: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    pd.DataFrame({part: pd.Series(names, dtype=str) for part, names in parts.items()}).to_csv(
        folder / f"splits_{k}.csv"
    )
    return folder


def read(folder: Path, cohort: Cohort, wanted: tuple[int, ...] | None = None) -> list[Fold]:
    return [to_fold(one, cohort) for one in read_splits(folder, wanted)]


def test_splits_of_slides_become_folds_of_patients_in_their_order(cases, tmp_path):
    folder = split(tmp_path / "s", train=["C-1", "A-2.svs", "A-1.svs"], val=["B-1"], test=[])
    assert read(folder, cases) == [Fold(0, ("C", "A"), ("B",), ())]


def test_splits_of_cases_are_read_too(cases, tmp_path):
    assert read(split(tmp_path / "s", train=["A"], val=["B"], test=["C"]), cases) == [Fold(0, ("A",), ("B",), ("C",))]


def test_splits_of_true_and_false_are_read_where_there_are_no_others(cases, tmp_path):
    text = (
        ",train,val,test\nA-1.svs,True,False,False\nA-2,True,False,False\nB-1,False,False,True\nC-1,False,True,False\n"
    )
    (tmp_path / "splits_0_bool.csv").write_text(text)
    assert read(tmp_path, cases) == [Fold(0, ("A",), ("C",), ("B",))]
    split(tmp_path, train=["B"], val=["A"], test=["C"])
    assert read(tmp_path, cases) == [Fold(0, ("B",), ("A",), ("C",))]


@pytest.mark.parametrize(("parts", "held_out"), [({"test": ["C"]}, "test"), ({"test": []}, "val"), ({}, "val")])
def test_results_are_reported_on_test_or_on_val_where_there_is_no_test(cases, tmp_path, parts, held_out):
    (fold,) = read(split(tmp_path / "s", train=["A"], val=["B"], **parts), cases)
    assert fold.held_out == held_out


def test_folds_come_in_order_of_their_number_and_other_files_are_no_splits(cases, tmp_path):
    for k in (10, 2, 0):
        folder = split(tmp_path / "s", k, train=["A"], val=["B"])
    (folder / "splits_0_descriptor.csv").write_text("LUAD")
    assert [fold.index for fold in read(folder, cases)] == [0, 2, 10]
    assert [fold.index for fold in read(folder, cases, (10, 0))] == [0, 10]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"train": ["A", "X"], "val": []}, "no patient of the table is in val"),
        ({"train": ["X"], "val": ["B"]}, "no patient of the table is in train"),
        ({"train": ["A"]}, "no column val"),
        ({"a": ["A"]}, "no column train"),
    ],
)
def test_a_split_without_patients_in_train_or_val_is_refused(cases, tmp_path, parts, sentence):
    folder = split(tmp_path / "s", **parts)
    with pytest.raises(CohortError, match=sentence) as error:
        read(folder, cases)
    assert error.value.where == folder / "splits_0.csv"


def test_a_split_that_is_not_csv_is_refused(tmp_path):
    (tmp_path / "splits_0.csv").write_text("")
    with pytest.raises(CohortError, match="the table is empty"):
        read_splits(tmp_path)


def test_hostile_names_of_splits_are_refused_or_passed_over(tmp_path):
    for name in ("splits_0.csv", "splits_1_bool.csv", "splits_1.csv"):
        (tmp_path / name).write_text("train,val\nA,B\n")
    for name in (f"splits_{'9' * 200}.csv", "splits_\u0663.csv", "splits_-1.csv", "splits_x.csv"):
        (tmp_path / name).write_text("")
    assert [(one.index, one.path.name) for one in read_splits(tmp_path)] == [(0, "splits_0.csv"), (1, "splits_1.csv")]
    (tmp_path / "splits_00.csv").write_text("")
    with pytest.raises(CohortError, match=r"splits_0\.csv and splits_00\.csv have the same number"):
        read_splits(tmp_path)
    (tmp_path / "splits_00.csv").unlink()
    (tmp_path / "splits_2.csv").mkdir()
    with pytest.raises(CohortError, match="is a folder, not a file"):
        read_splits(tmp_path)
    assert len(read_splits(tmp_path, (0, 1))) == 2


def test_a_thousand_splits_are_enough(tmp_path):
    for k in range(1001):
        (tmp_path / f"splits_{k}.csv").touch()
    with pytest.raises(CohortError, match=r"there are 1,001 splits, more than 1,000") as error:
        read_splits(tmp_path)
    assert "--folds" in error.value.fix


def test_a_folder_without_splits_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(CohortError, match=r"there is no splits_<k>\.csv"):
            read_splits(folder)


def test_a_fold_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    folder = split(tmp_path / "s", train=["A"], val=["B"])
    with pytest.raises(CohortError, match=r"there is no splits_3\.csv") as error:
        read_splits(folder, (0, 3))
    assert error.value.fix == "folds present: 0"


def test_written_folds_are_read_back_and_look_as_published_ones(cases, tmp_path):
    folds = [Fold(0, ("A",), ("B",), ("C",)), Fold(1, ("B", "C"), ("A",), ())]
    write_folds(tmp_path / "s", folds, cases)
    assert read(tmp_path / "s", cases) == folds
    assert (tmp_path / "s" / "splits_0.csv").read_text() == ",train,val,test\n0,A-1,B-1,C-1\n1,A-2,,\n"
    with pytest.raises(CohortError, match="the folder contains other splits"):
        write_folds(tmp_path / "s", folds[:1], cases)


def test_published_survival_splits_are_read_and_hold_every_patient_once(tcga):
    cases = read_cohort(tcga / "survival" / "dataset_csv" / "tcga_luad_all_clean.slim.csv", CoxTask())
    folds = read(tcga / "survival" / "splits" / "5foldcv" / "tcga_luad", cases)
    assert [fold.held_out for fold in folds] == ["val"] * 5
    assert sorted(case for fold in folds for case in fold.val) == sorted(cases.slides)
    assert all(len(fold.train) + len(fold.val) == len(cases.slides) == 453 for fold in folds)
