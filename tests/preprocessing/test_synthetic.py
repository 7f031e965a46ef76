"""The synthetic cohort: same seed, same bytes; readable slides; sound splits; and colour that tells nothing."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.errors import CohortError
from preprocessing.histology import HIGH_GRADE, LAYOUT_PX, LOW_GRADE, draw_slide
from preprocessing.synthetic import TRUTH_GREY, Cohort, assign_folds, make_cohort

SMALL = {"patients": 6, "folds": 3, "side_l0": 512}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort"), **SMALL)


@pytest.fixture(scope="module")
def clinical(cohort: Cohort) -> pd.DataFrame:
    return pd.read_csv(cohort.dataset)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_writes_the_same_bytes_however_many_workers_draw(cohort, tmp_path):
    again = make_cohort(tmp_path, workers=1, **SMALL)
    assert digests(again.slides.parent) == digests(cohort.slides.parent)


def test_another_seed_is_another_cohort(cohort, tmp_path):
    other = make_cohort(tmp_path, seed=1, **SMALL)
    ours, theirs = digests(cohort.slides), digests(other.slides)
    assert not set(ours.values()) & set(theirs.values())


def test_openslide_reads_an_aperio_pyramid_with_its_resolution(cohort, clinical):
    with openslide.OpenSlide(cohort.slides / clinical.slide_id[0]) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == 0.5
        assert slide.properties["openslide.objective-power"] == "20"
        assert slide.level_dimensions == ((512, 512), (128, 128))


def test_both_levels_show_the_same_picture(cohort, clinical):
    with openslide.OpenSlide(cohort.slides / clinical.slide_id[0]) as slide:
        full, low = (np.asarray(slide.read_region((0, 0), k, slide.level_dimensions[k]).convert("RGB")) for k in (0, 1))
    shrunk = cv2.resize(full, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(float) - low).mean() < 3


def test_the_clinical_table_names_every_slide_and_one_outcome_per_patient(cohort, clinical):
    assert list(clinical) == ["case_id", "slide_id", "oncotree_code", "survival_months", "censorship"]
    assert set(clinical.slide_id) == {path.name for path in cohort.slides.iterdir()}
    outcomes = clinical.groupby("case_id")[["oncotree_code", "survival_months", "censorship"]].nunique()
    assert (outcomes == 1).all(axis=None)
    assert clinical.groupby("case_id").oncotree_code.first().value_counts().to_dict() == {"SYNA": 3, "SYNS": 3}
    assert clinical.case_id.value_counts().max() == 2, "some patient should have two slides"


def test_splits_hold_every_slide_once_and_no_patient_twice(cohort, clinical):
    tested = []
    for k in range(SMALL["folds"]):
        split = pd.read_csv(cohort.splits / f"splits_{k}.csv", index_col=0)
        parts = {name: set(split[name].dropna()) for name in ("train", "val", "test")}
        assert sorted(slide for part in parts.values() for slide in part) == sorted(clinical.slide_id.str[:-4])
        patients = [{slide[:8] for slide in part} for part in parts.values()]
        assert sum(map(len, patients)) == len(set.union(*patients)) == SMALL["patients"]
        tested += parts["test"]
    assert sorted(tested) == sorted(clinical.slide_id.str[:-4])


@given(
    strata=st.lists(st.tuples(st.sampled_from(["SYNA", "SYNS"]), st.booleans()), min_size=1, max_size=60),
    folds=st.integers(3, 10),
    seed=st.integers(0, 2**32 - 1),
)
def test_folds_share_out_every_stratum_to_within_one_patient(strata, folds, seed):
    fold = assign_folds(np.random.default_rng(seed), strata, folds)
    everyone = np.ones(len(strata), bool)
    subtypes = [np.array([code == wanted for code, _ in strata]) for wanted in ("SYNA", "SYNS")]
    both = [np.array([stratum == wanted for stratum in strata]) for wanted in set(strata)]
    for members in (everyone, *subtypes, *both):
        assert np.ptp(np.bincount(fold[members], minlength=folds)) <= 1


def test_the_true_hazard_orders_survival_and_is_independent_of_subtype(tmp_path):
    from preprocessing.synthetic import _plan

    plan = [patient for seed in range(20) for patient in _plan(np.random.default_rng(seed), 40)]
