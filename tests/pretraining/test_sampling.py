from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvit.cohort.tables import barcodes
from longvit.pretraining.sampling import DrawSampler, SlideSchedule

slides_per_patient = st.lists(st.integers(1, 5), min_size=1, max_size=8)


def cohort(numbers: list[int]) -> tuple[list[Path], dict[str, str]]:
    """Stores and patients, given the number of slides of each patient."""
    patient_of = {f"s{p}-{k}": f"p{p}" for p, number in enumerate(numbers) for k in range(number)}
    return [Path("stores") / f"{slide}.zarr" for slide in patient_of], patient_of


@given(numbers=slides_per_patient, start=st.integers(0, 1000), length=st.integers(1, 200))
def test_any_run_of_draws_is_shared_evenly_by_the_patients(numbers, start, length):
    stores, patient_of = cohort(numbers)
    turns = SlideSchedule(stores, patient_of)
    drawn = Counter(patient_of[turns[i].stem] for i in range(start, start + length))
    shares = [drawn[patient] for patient in set(patient_of.values())]
    assert max(shares) - min(shares) <= 1


@given(numbers=slides_per_patient, rounds=st.integers(1, 30))
def test_the_draws_of_a_patient_are_shared_evenly_by_the_slides(numbers, rounds):
    stores, patient_of = cohort(numbers)
    turns = SlideSchedule(stores, patient_of)
    drawn = Counter(turns[i].stem for i in range(rounds * len(numbers)))
    for patient in set(patient_of.values()):
        shares = [drawn[slide] for slide, of in patient_of.items() if of == patient]
        assert max(shares) - min(shares) <= 1


@given(numbers=slides_per_patient, epoch=st.integers(0, 20))
def test_the_draws_of_an_epoch_are_shared_evenly_by_the_patients(numbers, epoch):
    stores, patient_of = cohort(numbers)
    turns, sampler = SlideSchedule(stores, patient_of), DrawSampler(3 * len(stores), seed=0)
    sampler.set_epoch(epoch)
    drawn = Counter(patient_of[turns[i].stem] for i in sampler)
    assert max(drawn.values()) - min(drawn.values()) <= 1


def test_slides_of_nobody_known_are_patients_of_their_own_even_with_a_patients_name():
    turns = SlideSchedule([Path("a.zarr"), Path("b.zarr"), Path("c.zarr")], {"a": "b", "c": "b"})
    assert [turns[i].stem for i in range(4)] == ["a", "b", "c", "b"]


def test_the_first_twelve_characters_of_a_tcga_barcode_are_the_patient():
    slides = ["TCGA-05-4244-01Z-00-DX1.d4ff32cd", "TCGA-05-4244-01Z-00-DX2.1", "SYN-0007-01Z", "x-TCGA-05-4244"]
    assert barcodes(slides) == {slides[0]: "TCGA-05-4244", slides[1]: "TCGA-05-4244"}


@given(length=st.integers(1, 50), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_every_epoch_draws_each_of_its_own_numbers_once(length, seed, epoch):
    sampler = DrawSampler(length, seed)
    sampler.set_epoch(epoch)
    assert len(sampler) == length
    assert sorted(sampler) == list(range(epoch * length, (epoch + 1) * length))
    assert list(sampler) == list(sampler)


def test_the_order_of_draws_is_new_in_every_epoch():
    sampler = DrawSampler(50, 0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert [i - 50 for i in sampler] != first


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_draws_depends_on_the_seed(seed):
    assert list(DrawSampler(50, 0)) != list(DrawSampler(50, seed))
