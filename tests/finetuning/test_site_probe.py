import math

import numpy as np
import pytest

from longvit.finetuning.site_probe import site_probe

CASES = [f"P{i:02d}" for i in range(60)]
SITES = {case: "ABC"[i % 3] for i, case in enumerate(CASES)}
LABELS = {case: "xy"[i // 3 % 2] for i, case in enumerate(CASES)}


def vectors(of: dict[str, str], noise: float = 0.1, width: int = 20, seed: int = 0) -> np.ndarray:
    """A vector per patient: a place for each value, and noise."""
    places = {value: 3.0 * np.eye(width)[i] for i, value in enumerate(sorted(set(of.values())))}
    rng = np.random.default_rng(seed)
    return np.array([places[of[case]] + rng.normal(0, noise, width) for case in CASES])


def test_hospitals_that_are_encoded_are_recognised_and_the_label_is_not():
    found = site_probe(vectors(SITES), CASES, SITES, LABELS, seed=0)
    assert (found.n_patients, found.reason) == (60, None)
    assert (found.site.n_classes, found.site.balanced_accuracy) == (3, 1.0)
    assert found.label.n_classes == 2
    assert abs(found.label.balanced_accuracy - 1 / 2) < 3 * found.label.chance_error


def test_a_label_that_is_encoded_is_recognised_and_hospitals_are_not():
    found = [site_probe(vectors(LABELS, seed=seed), CASES, SITES, LABELS, seed) for seed in range(5)]
    assert all(one.label.balanced_accuracy == 1 for one in found)
    assert abs(np.mean([one.site.balanced_accuracy for one in found]) - 1 / 3) < 2 * found[0].site.chance_error


def test_the_error_of_guesses_is_that_of_a_mean_of_shares():
    found = site_probe(vectors(SITES), CASES, SITES, LABELS, seed=0)
    assert found.site.chance_error == pytest.approx(math.sqrt(3 * (1 / 3 * 2 / 3) / 20) / 3)


def test_slides_of_a_patient_do_not_help_to_recognise_each_other():
    """Vectors name their patient and nothing else: only slides of one patient on both sides would be recognised."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(60, 200)).repeat(4, axis=0)
    found = site_probe(own, [case for case in CASES for _ in range(4)], SITES, LABELS, seed=0)
    assert found.n_patients == 60
    assert abs(found.site.balanced_accuracy - 1 / 3) < 3 * found.site.chance_error


def test_hospitals_with_few_patients_and_patients_without_a_hospital_are_left_out():
    sites = SITES | {"P00": "D", "P01": "D"}
    del sites["P02"]
    found = site_probe(vectors(SITES), CASES, sites, LABELS, seed=0)
    assert (found.n_patients, found.site.n_classes) == (57, 3)


@pytest.mark.parametrize(
    ("sites", "reason"),
    [
        ({}, "no patient's hospital is known: name its column with site_column"),
        (
            dict.fromkeys(CASES, "A"),
            "1 of 1 known hospitals have 5 or more held-out patients, and the probe needs two",
        ),
        (
            {case: case[-1] for case in CASES[:40]} | {"P50": "A"},
            "0 of 11 known hospitals have 5 or more held-out patients, and the probe needs two",
        ),
    ],
)
def test_without_two_hospitals_of_enough_patients_there_is_a_reason(sites, reason):
    found = site_probe(vectors(SITES), CASES, sites, LABELS, seed=0)
    assert (found.site, found.label, found.reason) == (None, None, reason)


def test_a_label_that_all_have_is_not_probed():
    found = site_probe(vectors(SITES), CASES, SITES, dict.fromkeys(CASES, 1), seed=0)
    assert found.label is None
    assert found.site.balanced_accuracy == 1


def test_no_patient_has_no_probe():
    assert site_probe(np.zeros((0, 3)), [], SITES, LABELS, seed=0).n_patients == 0
