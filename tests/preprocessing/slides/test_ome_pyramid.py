import re
from itertools import pairwise

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.slides.ome import ome_mpp
from preprocessing.slides.ome_pyramid import halved, write_ome_pyramid


@pytest.fixture(params=[(30, 50), (700, 300)], ids=["small", "with levels"])
def values(request) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=request.param).astype(np.float32)
    values[rng.random(request.param) < 0.3] = np.nan
    return values


def test_the_file_is_an_ome_tiff_of_the_numbers_with_their_size_in_micrometres(values, tmp_path):
    path = tmp_path / "map.ome.tif"
    write_ome_pyramid(path, values, (16.0, 16.5), "Attention received")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        series = tiff.series[0]
        np.testing.assert_array_equal(series.asarray(), values)
        height, width = values.shape
        assert ome_mpp(tiff.ome_metadata, (width, height)) == (16.0, 16.5)
        assert 'PositionX="0.0"' in tiff.ome_metadata
        assert 'Name="Attention received"' in tiff.ome_metadata
        sides = [max(level.shape) for level in series.levels]
    assert sides == ([50] if height == 30 else [700, 350, 175])


def test_equal_maps_are_equal_files_and_others_have_another_identity(values, tmp_path):
    written = []
    for name, factor in (("a", 1), ("b", 1), ("c", 2)):
        write_ome_pyramid(tmp_path / f"{name}.ome.tif", factor * values, (16.0, 16.0), "x")
        written.append((tmp_path / f"{name}.ome.tif").read_bytes())
    assert written[0] == written[1]
    first, other = (re.search(rb'UUID="urn:uuid:([0-9a-f-]{36})"', content)[1] for content in written[1:])
    assert first != other


def test_each_level_halves_the_one_before(values, tmp_path):
    path = tmp_path / "map.ome.tif"
    write_ome_pyramid(path, values, (16.0, 16.0), "x")
    with tifffile.TiffFile(path) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
        for upper, lower in pairwise(levels):
            np.testing.assert_array_equal(halved(upper), lower)


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_pixel_of_the_next_level_is_the_mean_of_the_numbers_under_it(height, width, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(height, width)).astype(np.float32)
    values[rng.random((height, width)) < 0.5] = np.nan
    lower = halved(values)
    assert lower.shape == (-(-height // 2), -(-width // 2))
    for row, column in np.ndindex(lower.shape):
        four = values[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        numbers = four[np.isfinite(four)]
        assert (
            np.isnan(lower[row, column])
            if not len(numbers)
            else np.isclose(lower[row, column], numbers.mean(), atol=1e-6)
        )
