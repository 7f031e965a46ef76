import pandas as pd
import pytest
import torch

from longvit.cohort.patients import Cohort, read_cohort
from longvit.cohort.splits import Fold
from longvit.config import CoxTask, SubtypeTask
from longvit.finetuning.data import PatientDataset, shuffled_targets, train_loader, whole_loader
from longvit.tokens.sequences import Slides, sequences


@pytest.fixture
def subtypes(cohort) -> Cohort:
    return read_cohort(cohort.table, SubtypeTask())


@pytest.fixture
def survival(cohort) -> Cohort:
    return read_cohort(cohort.table, CoxTask())


def read(slides: Slides) -> torch.Tensor:
    """The slides' numbers as their representation."""
    return torch.tensor([[float(slide[1:3]) for slide in slides]])


def test_a_window_of_indices_is_its_patients_with_all_their_slides_and_class(subtypes):
    dataset = PatientDataset(["P02", "P05", "P00"], subtypes, subtypes.targets, read)
    assert len(dataset) == 3
    first, second = dataset[[1, 0]]
    assert ([s.item() for s in first.items], first.label) == ([5], 1)
    assert ([s.item() for s in second.items], second.label) == ([2, 2], 0)


def test_slides_are_sequences_of_their_own_or_one_sequence():
    assert sequences(["a", "b"], "late") == [("a",), ("b",)]
    assert sequences(["a", "b"], "early") == [("a", "b")]
    assert sequences(["a"], "late") == sequences(["a"], "early") == [("a",)]


def test_with_early_fusion_a_patient_is_one_item_of_all_slides(subtypes):
    (patient,) = PatientDataset(["P02"], subtypes, subtypes.targets, read, "early")[[0]]
    assert [item.tolist() for item in patient.items] == [[[2.0, 2.0]]]


def test_a_patient_of_a_survival_cohort_has_time_and_event(survival):
    (censored, dead) = PatientDataset(["P03", "P04"], survival, survival.targets, read)[[0, 1]]
    assert (censored.time, censored.event) == (7.0, False)
    assert (dead.time, dead.event) == (10.5, True)


def test_targets_may_differ_from_those_of_the_cohort(subtypes):
    (patient,) = PatientDataset(["P00"], subtypes, subtypes.targets.assign(label="LUSC"), read)[[0]]
    assert patient.label == 1


@pytest.mark.parametrize(("window", "windows"), [(2, 4), (6, 2), (100, 1)])
def test_training_windows_hold_enough_events(survival, config, window, windows):
    config = config.model_copy(update={"task": CoxTask(min_events=2), "window": window})
    loader = train_loader(PatientDataset(list(survival.slides), survival, survival.targets, read), config)
    dealt = list(loader)
    assert len(dealt) == len(loader) == windows  # 8 of 12 have an event, so four windows at the most
    assert sum(map(len, dealt)) == 12
    assert all(sum(patient.event for patient in patients) >= 2 for patients in dealt)


def test_the_val_part_is_one_window(subtypes):
    (patients,) = whole_loader(PatientDataset(["P01", "P02"], subtypes, subtypes.targets, read))
    assert [len(patient.items) for patient in patients] == [1, 2]


FOLD = Fold(0, tuple(f"P{i:02d}" for i in range(6)), ("P06", "P07", "P08"), ("P09", "P10", "P11"))


@pytest.mark.parametrize("task", [SubtypeTask(), CoxTask()], ids=["subtype", "cox"])
def test_shuffling_deals_targets_anew_within_train_and_val_and_leaves_test_alone(cohort, task):
    targets = read_cohort(cohort.table, task).targets
    before = targets.copy()
    shuffled = [shuffled_targets(targets, FOLD, (0, k)) for k in range(4)]
    for one in shuffled:
        assert (one.dtypes == targets.dtypes).all()
        for part in (FOLD.train, FOLD.val):
            rows = [sorted(table.loc[list(part)].itertuples(index=False)) for table in (one, targets)]
            assert rows[0] == rows[1]
        pd.testing.assert_frame_equal(one.loc[list(FOLD.test)], targets.loc[list(FOLD.test)])
    assert any(not one.equals(targets) for one in shuffled)
    assert any(not one.equals(shuffled[0]) for one in shuffled)
    pd.testing.assert_frame_equal(shuffled_targets(targets, FOLD, (0, 0)), shuffled[0])
    pd.testing.assert_frame_equal(targets, before)


def test_folds_are_shuffled_apart(subtypes):
    other = Fold(1, FOLD.train, FOLD.val, FOLD.test)
    pairs = [[shuffled_targets(subtypes.targets, fold, (0, k)) for fold in (FOLD, other)] for k in range(4)]
    assert any(not one.equals(another) for one, another in pairs)
