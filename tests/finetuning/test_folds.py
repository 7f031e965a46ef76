from pathlib import Path

import pandas as pd
import pytest

from longvit.config import CoxTask, SubtypeTask
from longvit.finetuning.cohort import Cohort, read_cohort
from longvit.finetuning.folds import Fold, read_folds
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


def test_splits_of_slides_become_folds_of_patients_in_their_order(cases, tmp_path):
    folder = split(tmp_path / "s", train=["C-1", "A-2.svs", "A-1.svs"], val=["B-1"], test=[])
    assert read_folds(folder, cases) == [Fold(0, ("C", "A"), ("B",), ())]


def test_splits_of_cases_are_read_too(cases, tmp_path):
    assert read_folds(split(tmp_path / "s", train=["A"], val=["B"], test=["C"]), cases) == [
        Fold(0, ("A",), ("B",), ("C",))
    ]


@pytest.mark.parametrize(("parts", "held_out"), [({"test": ["C"]}, "test"), ({"test": []}, "val"), ({}, "val")])
def test_results_are_reported_on_test_or_on_val_where_there_is_no_test(cases, tmp_path, parts, held_out):
    (fold,) = read_folds(split(tmp_path / "s", train=["A"], val=["B"], **parts), cases)
    assert fold.held_out == held_out


def test_folds_come_in_order_of_their_number_and_other_files_are_no_splits(cases, tmp_path):
    for k in (10, 2, 0):
        folder = split(tmp_path / "s", k, train=["A"], val=["B"])
    (folder / "splits_0_descriptor.csv").write_text("LUAD")
    assert [fold.index for fold in read_folds(folder, cases)] == [0, 2, 10]
    assert [fold.index for fold in read_folds(folder, cases, (10, 0))] == [0, 10]


def test_patients_of_classes_that_are_not_asked_for_are_passed_over(table, tmp_path):
    path = table(
        lambda rows: pd.concat([rows, rows[2:3].assign(case_id="D", slide_id="D-1.svs", oncotree_code="MESO")])
    )
    cases = read_cohort(path, SubtypeTask(classes=("LUAD", "LUSC")))
    folder = split(tmp_path / "s", train=["A-1", "D-1"], val=["B-1", "D"])
    assert read_folds(folder, cases) == [Fold(0, ("A",), ("B",), ())]
    split(folder, train=["A-1", "D-2"], val=["B-1"])  # a slide that begins like a patient who is left out
    with pytest.raises(CohortError, match="names 1 slides or cases that the table does not have: D-2"):
        read_folds(folder, cases)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"train": ["A-1"], "val": ["B"], "test": ["A-2"]}, "1 patients are in both train and test: A"),
        ({"train": ["A-1"], "val": ["A-2"], "test": ["C"]}, "1 patients are in both train and val: A"),
        ({"train": ["B"], "val": ["A-1", "C"], "test": ["A", "C-1"]}, "2 patients are in both val and test: A, C"),
        ({"train": ["A", "X"], "val": ["B"], "test": ["Y-1"]}, "names 2 slides or cases .* does not have: X, Y-1"),
        ({"train": ["A"], "val": []}, "no patient of the table is in val"),
        ({"train": [], "val": ["B"]}, "no patient of the table is in train"),
        ({"train": ["A"]}, "no column val"),
        ({"a": ["A"]}, "no column train"),
    ],
)
def test_a_split_that_cannot_be_used_is_refused(cases, tmp_path, parts, sentence):
    folder = split(tmp_path / "s", **parts)
    with pytest.raises(CohortError, match=sentence) as error:
        read_folds(folder, cases)
    assert error.value.where == folder / "splits_0.csv"


def test_a_patient_in_two_parts_is_named_before_names_that_are_unknown(cases, tmp_path):
    folder = split(tmp_path / "s", train=["A-1", "X"], val=["A-2"])
    with pytest.raises(CohortError, match="in both train and val: A"):
        read_folds(folder, cases)


def test_a_split_that_is_not_csv_is_refused(cases, tmp_path):
    (tmp_path / "splits_0.csv").write_text("")
    with pytest.raises(CohortError, match="cannot be read as CSV"):
        read_folds(tmp_path, cases)


def test_a_folder_without_splits_is_refused(cases, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(CohortError, match=r"there is no splits_<k>\.csv"):
            read_folds(folder, cases)


def test_a_fold_that_is_not_there_is_refused_with_those_that_are(cases, tmp_path):
    folder = split(tmp_path / "s", train=["A"], val=["B"])
    with pytest.raises(CohortError, match=r"there is no splits_3\.csv") as error:
        read_folds(folder, cases, (0, 3))
    assert error.value.fix == "folds present: 0"


def test_published_survival_splits_are_read_and_hold_every_patient_once(tcga):
    cases = read_cohort(tcga / "survival" / "dataset_csv" / "tcga_luad_all_clean.slim.csv", CoxTask())
    folds = read_folds(tcga / "survival" / "splits" / "5foldcv" / "tcga_luad", cases)
    assert [fold.held_out for fold in folds] == ["val"] * 5
    assert sorted(case for fold in folds for case in fold.val) == sorted(cases.slides)
    assert all(len(fold.train) + len(fold.val) == len(cases.slides) == 453 for fold in folds)


@pytest.mark.parametrize("cancer", ["brca", "kidney", "lung"])
@pytest.mark.parametrize("k", range(10))
def test_published_subtyping_splits_are_refused_for_patients_in_two_parts(tcga, cancer, k):
    cases = read_cohort(tcga / "subtyping" / "dataset_csv" / f"tcga_{cancer}_subset.csv.zip", SubtypeTask())
    with pytest.raises(CohortError, match=r"\d+ patients are in both train and val: TCGA-\w\w-\w{4}"):
        read_folds(tcga / "subtyping" / "splits" / "10foldcv_subtype" / f"tcga_{cancer}", cases, (k,))
