import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longvit.finetuning.windows import BalancedWindows

sizes = st.integers(1, 40)


@given(events=st.lists(st.booleans(), min_size=1, max_size=80), size=sizes, epoch=st.integers(0, 20))
def test_every_patient_is_in_one_window_of_every_epoch(events, size, epoch):
    windows = BalancedWindows(np.array(events), size, seed=0)
    windows.set_epoch(epoch)
    dealt = list(windows)
    assert len(dealt) == len(windows)
    assert sorted(patient for window in dealt for patient in window) == list(range(len(events)))


@given(
    events=st.lists(st.booleans(), min_size=1, max_size=80).filter(any),
    size=sizes,
    min_events=st.integers(1, 4),
    epoch=st.integers(0, 20),
)
def test_every_window_has_its_share_of_events(events, size, min_events, epoch):
    observed = np.array(events)
    windows = BalancedWindows(observed, size, seed=1, most=int(observed.sum()) // min_events)
    windows.set_epoch(epoch)
    counts = [int(observed[window].sum()) for window in windows]
    assert min(counts) >= min(min_events, observed.sum())
    assert max(counts) - min(counts) <= 1


@given(labels=st.lists(st.sampled_from("abc"), min_size=1, max_size=80), size=sizes)
def test_windows_are_of_one_size_and_every_class_is_spread_over_them(labels, size):
    strata = np.array(labels)
    dealt = list(BalancedWindows(strata, size, seed=0))
    lengths = [len(window) for window in dealt]
    assert max(lengths) - min(lengths) <= 1
    for stratum in set(labels):
        counts = [int((strata[window] == stratum).sum()) for window in dealt]
        assert max(counts) - min(counts) <= 1


def test_windows_hold_about_as_many_patients_as_asked_for():
    assert [len(BalancedWindows(np.zeros(40), size, 0)) for size in (1, 8, 16, 39, 1000)] == [40, 5, 2, 1, 1]


def test_epochs_and_seeds_deal_anew_and_the_same_ones_alike():
    def dealt(seed: int, epoch: int) -> list[list[int]]:
        windows = BalancedWindows(np.arange(30) % 2, 10, seed)
        windows.set_epoch(epoch)
        return list(windows)

    assert dealt(0, 1) == dealt(0, 1)
    assert dealt(0, 1) != dealt(0, 2)
    assert dealt(0, 1) != dealt(1, 1)
