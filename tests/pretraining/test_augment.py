import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvit.config import ViewsConfig
from longvit.pretraining.augment import Change, change_stain, draw_stain

PLAIN = ViewsConfig(stain_jitter=0, blur_probability=0)
seeds = st.integers(0, 1 << 30)


def image(seed: int = 0, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def jitter_stain(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return change_stain(image, draw_stain(strength, rng))


def symmetries(of: np.ndarray) -> list[bytes]:
    return [side.tobytes() for k in range(4) for side in (np.rot90(of, k), np.rot90(of, k)[:, ::-1])]


def test_without_jitter_and_blur_all_eight_symmetries_occur_and_nothing_else():
    found = {Change.draw(PLAIN, np.random.default_rng(seed)).apply(image()).tobytes() for seed in range(100)}
    assert found == set(symmetries(image()))


@given(seed=seeds)
def test_the_same_generator_gives_the_same_version(seed):
    views = ViewsConfig(stain_jitter=0.2, blur_probability=0.5)
    one, other = (Change.draw(views, np.random.default_rng(seed)).apply(image(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@given(seed=seeds)
def test_a_jitter_of_strength_0_changes_no_pixel_by_more_than_rounding(seed):
    jittered = jitter_stain(image(seed), 0.0, np.random.default_rng(seed))
    np.testing.assert_allclose(jittered.astype(int), image(seed), atol=1)


@given(seed=seeds)
def test_a_pixel_is_jittered_whatever_surrounds_it(seed):
    jittered = jitter_stain(image(seed), 0.3, np.random.default_rng(seed))
    alone = jitter_stain(image(seed)[2:3, 3:4], 0.3, np.random.default_rng(seed))
    np.testing.assert_allclose(jittered[2:3, 3:4].astype(int), alone, atol=1)


def test_glass_stays_near_white_and_stronger_jitter_changes_tissue_more():
    tissue, glass = (np.full((1, 1, 3), colour, np.uint8) for colour in ((110, 60, 140), (255, 255, 255)))
    change = {
        strength: np.mean(
            [np.abs(jitter_stain(tissue, strength, np.random.default_rng(s)).astype(int) - tissue) for s in range(50)]
        )
        for strength in (0.05, 0.3)
    }
    assert 0 < change[0.05] < change[0.3]
    assert min(jitter_stain(glass, 0.1, np.random.default_rng(s)).min() for s in range(50)) > 240


@pytest.mark.parametrize(("probability", "blurred"), [(0.0, False), (1.0, True)])
def test_blur_happens_with_its_probability(probability, blurred):
    noise = image(side=32)
    views = ViewsConfig(stain_jitter=0, blur_probability=probability)
    spread = [Change.draw(views, np.random.default_rng(seed)).apply(noise).std() for seed in range(10)]
    assert all((value < noise.std() - 1e-6) == blurred for value in spread)


@given(seed=seeds, ends=st.tuples(st.integers(0, 39), st.integers(1, 40)), sigma=st.sampled_from([0.0, 1.0]))
def test_rows_of_a_changed_crop_are_made_from_its_source_alone(seed, ends, sigma):
    rows, whole = range(min(ends[0], ends[1] - 1), ends[1]), image(seed, side=40)
    change = Change.draw(ViewsConfig(stain_jitter=0.2, blur_probability=sigma), np.random.default_rng(seed))
    computed = change.rows_for(rows, 40)
    made = change.apply(np.ascontiguousarray(whole[change.source(computed, 40)]))
    assert made.shape == (len(computed), 40, 3)
    part = made[rows.start - computed.start : rows.stop - computed.start]
    np.testing.assert_array_equal(part, change.apply(whole)[rows.start : rows.stop])
