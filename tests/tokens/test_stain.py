import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from longvit.config import PixelInput
from longvit.tokens import stain
from longvit.tokens.source import patchify, token_source
from longvit.tokens.stain import (
    StainMap,
    change_stain,
    find_stains,
    macenko,
    normalised,
    reinhard,
    sampled,
    stain_map,
    stained,
)
from preprocessing.store.store import open_store

STAINS = np.array([[0.65, 0.12], [0.70, 0.95], [0.29, 0.28]])
"""Haematoxylin and eosin of a laboratory."""
OTHER = np.array([[0.80, 0.20], [0.52, 0.85], [0.30, 0.49]])
"""Of another laboratory."""


def tissue(n: int = 4000, stains: np.ndarray = STAINS, amounts: tuple[float, float] = (1.6, 1.1)) -> np.ndarray:
    """Pixels (n, 3) of tissue: mixtures of two stains that fill a square evenly, by two irrational steps."""
    i = np.arange(n)
    mixed = np.stack([0.15 + amounts[0] * (i * 0.6180339887 % 1), 0.15 + amounts[1] * (i * 0.4142135624 % 1)])
    return np.ascontiguousarray((240 * np.exp(-stains @ mixed)).round().astype(np.uint8).T)


def image(pixels: np.ndarray) -> np.ndarray:
    """One image of a row of pixels."""
    return pixels[None, None]


def test_stains_and_amounts_are_those_of_torchstain():
    """torchstain 1.4.1, MIT: NumpyMacenkoNormalizer's stains (HE) and 99th percentiles (maxC) of the same pixels."""
    stains, most = find_stains(stained(tissue(), 3))
    expected = [[0.603056995, 0.204869035], [0.740510438, 0.934475002], [0.296591558, 0.291178895]]
    np.testing.assert_allclose(stains, expected, atol=1e-6)
    np.testing.assert_allclose(most, [1.834688326, 1.357468108], atol=1e-6)


EVERY = slice(0, 4000, 443)


def test_pixels_of_macenko_are_those_of_torchstain():
    """torchstain 1.4.1, MIT: `NumpyMacenkoNormalizer().normalize` of the same pixels, which truncates."""
    expected = [[109, 71, 115], [147, 111, 151], [100, 62, 107], [86, 42, 83], [79, 53, 100], [155, 104, 142]]
    expected += [[164, 134, 170], [141, 91, 131], [121, 62, 102]]
    changed = macenko(tissue()).apply(image(stained(tissue(), 3)))[0, 0, EVERY]
    np.testing.assert_allclose(changed.astype(int), expected, atol=1)


def test_pixels_of_reinhard_are_those_of_histomicstk():
    """HistomicsTK 1.4, Apache 2.0: the formulas of `reinhard` (`rgb_to_lab`, `lab_to_rgb`), which truncate."""
    changed = reinhard(tissue()).apply(image(tissue()))[0, 0, EVERY]
    expected = [[255, 255, 255], [130, 88, 145], [151, 69, 136], [220, 148, 196], [254, 115, 183], [107, 74, 130]]
    expected += [[125, 59, 123], [183, 124, 176], [210, 97, 165], [255, 210, 239]]
    np.testing.assert_allclose(changed.astype(int), expected, atol=1)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_macenko_makes_two_stains_of_the_same_tissue_nearly_the_same_pixels():
    one, other = tissue(), tissue(stains=OTHER, amounts=(1.1, 1.6))
    before = apart(one, other)
    assert before > 15
    assert apart(*(macenko(pixels).apply(image(pixels)) for pixels in (one, other))) < 0.1 * before


def test_reinhard_makes_two_lamps_and_contrasts_on_the_same_tissue_nearly_the_same_pixels():
    one = tissue()
    cones = 256 * np.array([0.9, 0.85, 0.75]) * ((one + 1.0) / 256 @ stain._LMS.T) ** 0.95
    other = (cones @ np.linalg.inv(stain._LMS).T).round().astype(np.uint8)
    before = apart(one, other)
    assert before > 15
    assert apart(*(reinhard(pixels).apply(image(pixels)) for pixels in (one, other))) < 0.1 * before


@pytest.mark.parametrize("method", [macenko, reinhard])
def test_glass_on_a_slide_does_not_change_its_estimate_and_stays_bright(method):
    glass = np.full((9000, 3), 243, np.uint8)
    alone, beside = method(tissue()), method(np.concatenate([tissue(), glass]))
    np.testing.assert_array_equal(alone.matrix, beside.matrix)
    assert alone.apply(image(glass)).min() > 225


def test_macenko_ignores_pixels_that_are_dense_in_one_colour_alone_and_reinhard_counts_them():
    yellow = np.concatenate([tissue(), np.full((3000, 3), (243, 240, 190), np.uint8)])
    np.testing.assert_array_equal(macenko(tissue()).matrix, macenko(yellow).matrix)
    assert not np.allclose(reinhard(tissue()).matrix, reinhard(yellow).matrix, atol=0.1)


def test_a_slide_in_the_reference_stain_keeps_its_colours():
    _, most = find_stains(tissue(stains=stain.MACENKO_STAINS))
    pixels = tissue(stains=stain.MACENKO_STAINS, amounts=tuple(np.array([1.6, 1.1]) * stain.MACENKO_MOST / most))
    assert apart(macenko(pixels).apply(image(pixels)), image(pixels)) < 4


def test_densities_are_mixed_before_and_unmixed_after_the_map():
    pixels = image(tissue())
    same = np.eye(3, 4, dtype=np.float32)
    np.testing.assert_allclose(StainMap(same, stain._LMS).apply(pixels).astype(int), pixels, atol=1)
    np.testing.assert_array_equal(StainMap(same).apply(pixels)[0], change_stain(pixels[0], same))


@pytest.mark.parametrize("method", [macenko, reinhard])
@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (np.full((5000, 3), 250, np.uint8), "only 0 of 5000 sampled pixels are stained"),
        (np.full((5000, 3), 90, np.uint8), "only one"),
        (tissue(999), "only .* of 999"),
    ],
)
def test_pixels_without_two_stains_have_no_estimate(method, pixels, why):
    with pytest.raises(ValueError, match=why):
        method(pixels)


def test_pixels_of_haematoxylin_alone_have_one_stain():
    amount = np.linspace(0.3, 2, 5000)
    with pytest.raises(ValueError, match="only one stain"):
        macenko((240 * np.exp(-np.outer(amount, STAINS[:, 0]))).astype(np.uint8))


GRID = [[row, column] for row in range(2) for column in range(2)]


def slide(save_store, name: str = "a", stains: np.ndarray = STAINS):
    """A store of four tiles of 64 blocks of 8 x 8 pixels; the last tile has little haematoxylin."""
    blocks = [tissue(64, stains, (1.6 - 0.4 * i, 1.1)).reshape(8, 8, 3) for i in range(4)]
    tiles = [of.repeat(8, axis=0).repeat(8, axis=1) for of in blocks]
    return save_store(name, GRID, np.stack(tiles))


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_all_tiles_of_a_slide_change_alike_and_tokens_are_of_the_changed_tiles(method, save_store):
    store = slide(save_store)
    source = token_source(store, PixelInput(patch_px=16, stain=method))
    change = stain_map(store, method)
    expected = patchify(change.apply(store.read_tiles(range(4))), 16).reshape(-1, source.width)
    together = source.read(np.arange(4))
    np.testing.assert_array_equal(together, expected)
    np.testing.assert_array_equal(np.concatenate([source.read(np.array([i])) for i in range(4)]), together)
    assert apart(together, token_source(store, PixelInput(patch_px=16)).read(np.arange(4))) > 5
    assert source.dtype == together.dtype == np.uint8


def test_a_slide_that_was_restained_has_nearly_the_same_tokens(save_store):
    stores = slide(save_store), slide(save_store, "b", OTHER)
    plain, normal = (
        [token_source(store, PixelInput(patch_px=16, stain=method)).read(np.arange(4)) for store in stores]
        for method in ("none", "macenko")
    )
    assert apart(*normal) < 0.3 * apart(*plain)


def test_an_estimate_is_the_same_in_another_process_and_in_threads_that_read_at_once(save_store, monkeypatch):
    store = slide(save_store)
    code = (
        "import sys, pickle; from longvit.tokens.stain import stain_map;"
        "from preprocessing.store.store import open_store;"
        "sys.stdout.buffer.write(pickle.dumps(stain_map(open_store(sys.argv[1]), 'reinhard').matrix.tobytes()))"
    )
    apart_ = subprocess.run([sys.executable, "-c", code, str(store.path)], check=True, stdout=subprocess.PIPE).stdout
    counted = []
    monkeypatch.setattr(stain, "sampled", lambda one: counted.append(one) or sampled(one))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: stain_map(open_store(store.path), "reinhard"), range(8)))
    assert len(counted) == 1
    assert {one.matrix.tobytes() for one in found} == {pickle.loads(apart_)}


def test_a_slide_that_was_tiled_again_is_estimated_again(save_store, tmp_path):
    first = stain_map(slide(save_store), "macenko")
    (tmp_path / "a.zarr").rename(tmp_path / "old.zarr")
    tiles = np.stack([tissue(64**2, OTHER).reshape(64, 64, 3)] * 4)
    again = stain_map(save_store("a", GRID, tiles, mpp=1.0), "macenko")
    assert not np.allclose(first.matrix, again.matrix, atol=1e-3)


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_an_almost_white_slide_keeps_its_colours_with_one_note(method, save_store, capsys):
    store = save_store("white", GRID, np.full((4, 64, 64, 3), 246, np.uint8))
    images = store.read_tiles(range(4))
    for _ in range(2):
        assert normalised(images, store, method) is images
    assert capsys.readouterr().err == (
        "note: white.zarr: the colours are not normalised, because only 0 of 16384 sampled pixels are stained\n"
    )


def test_few_tiles_are_sampled_one_at_a_time(save_store, monkeypatch):
    store, read = save_store("a", [[i, 0] for i in range(70)], grid_shape=(70, 1)), []
    real = type(store).read_tiles
    monkeypatch.setattr(type(store), "read_tiles", lambda self, tiles: read.append(list(tiles)) or real(self, tiles))
    assert sampled(store).shape == (48 * 64**2, 3)
    assert [len(tiles) for tiles in read] == [1] * 48
    assert (read[0], read[-1]) == ([0], [69])


def test_without_normalisation_no_tile_is_sampled(save_store, monkeypatch):
    monkeypatch.setattr(stain, "sampled", None)
    assert len(token_source(slide(save_store), PixelInput(patch_px=16)).read(np.arange(1))) == 16
