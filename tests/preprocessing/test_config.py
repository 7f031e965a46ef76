"""Bounds of the settings: every number that decides how much memory or time a run takes has one."""

import math

import pytest
from pydantic import ValidationError

from preprocessing.config import TileConfig, TissueConfig


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1])
@pytest.mark.parametrize("name", ["mpp", "mpp_tolerance", "mpp_if_missing", "min_tissue"])
def test_numbers_are_finite(name, value):
    with pytest.raises(ValidationError, match=name):
        TileConfig(slides="a", out="b", **{name: value})


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e300, -1])
@pytest.mark.parametrize("name", ["mask_um", "min_area_um2", "fill_holes_um2"])
def test_lengths_and_areas_of_tissue_are_finite_and_bounded(name, value):
    with pytest.raises(ValidationError, match=name):
        TissueConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "most"),
    [("mpp", 100), ("canvas", 1 << 18), ("tile_px", 4096), ("shard_tiles", 1 << 20), ("workers", 1024)],
)
def test_what_takes_memory_has_a_largest_value(name, most):
    assert getattr(TileConfig(slides="a", out="b", **{name: most}), name) == most
    for value in (2 * most, 10**30, 0, -32):
        with pytest.raises(ValidationError, match=name):
            TileConfig(slides="a", out="b", **{name: value})
