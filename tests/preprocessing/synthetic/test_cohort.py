"""The synthetic cohort: same seed, same bytes; readable slides; sound splits; and colour that tells nothing."""

import hashlib
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sksurv.metrics import concordance_index_censored

from preprocessing.errors import CohortError
from preprocessing.synthetic.cohort import TRUTH_GREY, CohortPaths, assign_folds, make_cohort, plan_patients
from preprocessing.synthetic.histology import HIGH_GRADE, LAYOUT_PX, LOW_GRADE, Growth, draw_slide

SMALL = {"patients": 6, "folds": 3, "side_l0": 512}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CohortPaths:
    return make_cohort(tmp_path_factory.mktemp("cohort"), **SMALL)


@pytest.fixture(scope="module")
def clinical(cohort: CohortPaths) -> pd.DataFrame:
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
    assert np.corrcoef(shrunk.ravel(), low.ravel())[0, 1] > 0.98


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


def test_hazard_is_planted_evenly_in_both_subtypes_and_three_in_ten_are_censored():
    plan = [patient for seed in range(20) for patient in plan_patients(np.random.default_rng(seed), 40)]
    of = {code: [p.high_grade for p in plan if p.code == code] for code in ("SYNA", "SYNS")}
    assert abs(np.mean(of["SYNA"]) - np.mean(of["SYNS"])) < 0.02
    assert min(map(np.ptp, of.values())) > 0.95
    assert 0.2 < np.mean([not p.event for p in plan]) < 0.4


def test_the_true_hazard_ranks_survival_as_well_as_documented():
    plan = [patient for seed in range(20) for patient in plan_patients(np.random.default_rng(seed), 40)]
    event, months, hazard = (np.array([getattr(p, name) for p in plan]) for name in ("event", "months", "log_hazard"))
    assert concordance_index_censored(event, months, hazard)[0] == pytest.approx(0.89, abs=0.02)


def test_truth_masks_show_the_planted_share_of_high_grade(cohort, clinical):
    truth = pd.read_csv(cohort.truth).set_index("case_id")
    for case, slide in zip(clinical.case_id, clinical.slide_id, strict=True):
        mask = cv2.imread(str(cohort.truth_masks / slide.replace(".svs", ".png")), cv2.IMREAD_GRAYSCALE)
        assert mask.shape == (512 // LAYOUT_PX, 512 // LAYOUT_PX)
        high, low = ((mask == TRUTH_GREY[grade]).sum() for grade in (HIGH_GRADE, LOW_GRADE))
        assert high / (high + low) == pytest.approx(truth.high_grade[case], abs=0.01)


def tissue_colour(image: np.ndarray) -> np.ndarray:
    """Mean and spread of R, G and B over what is not glass."""
    tissue = image[image.min(-1) < 215].astype(float)
    return np.concatenate([tissue.mean(0), tissue.std(0)])


def alike_up_to(pixels: int, image: np.ndarray) -> float:
    """Correlation of red with itself so many pixels away, in the middle of the slide."""
    side = len(image)
    red = image[side // 4 : -side // 4, side // 4 : -side // 4, 0].astype(float)
    red = (red - red.mean()) / red.std()
    return float((red[pixels:] * red[:-pixels]).mean() + (red[:, pixels:] * red[:, :-pixels]).mean()) / 2


@pytest.fixture(scope="module")
def counterfactuals() -> list[dict[tuple[Growth, float], np.ndarray]]:
    """Three slides, each drawn with every combination of growth and grade."""
    planted = [(growth, share) for growth in get_args(Growth) for share in (0.1, 0.9)]
    return [{p: draw_slide(np.random.default_rng(seed), 768, *p).image for p in planted} for seed in range(3)]


def test_colour_does_not_change_with_what_is_planted_but_does_between_slides(counterfactuals):
    colour = np.array([[tissue_colour(image) for image in slide.values()] for slide in counterfactuals])
    assert np.ptp(colour, axis=1).max() < 0.7, "grey levels, between drawings of one slide"
    assert np.ptp(colour[:, 0, :3], axis=0).min() > 5, "grey levels, between slides"


def test_texture_changes_with_growth_and_with_grade(counterfactuals):
    for slide in counterfactuals:
        alike = {planted: alike_up_to(8, image) for planted, image in slide.items()}
        for growth in get_args(Growth):
            assert alike[growth, 0.9] > alike[growth, 0.1] + 0.05
        for share in (0.1, 0.9):
            assert alike["acinar", share] > alike["spindle", share] + 0.05


@pytest.mark.parametrize(("patients", "folds", "what"), [(40, 2, "training"), (9, 5, "each subtype")])
def test_too_few_folds_or_patients_are_refused(tmp_path, patients, folds, what):
    with pytest.raises(CohortError, match=what):
        make_cohort(tmp_path, patients=patients, folds=folds)
    assert not any(tmp_path.iterdir())


def test_slides_of_another_cohort_are_not_mixed_in(tmp_path):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "SYN-0099-01Z-00-DX1.svs").touch()
    with pytest.raises(CohortError, match="SYN-0099"):
        make_cohort(tmp_path, **SMALL)


def test_progress_names_every_slide_in_order(tmp_path):
    seen = []
    cohort = make_cohort(tmp_path, patients=6, folds=3, side_l0=256, on_slide=seen.append)
    assert seen == sorted(path.stem for path in cohort.slides.iterdir())
