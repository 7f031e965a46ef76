import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from longvit.explanation.colour import DIVERGING, SEQUENTIAL, ColourScale, ranked

scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40).map(np.array)


def test_a_scale_with_a_sign_is_even_on_both_sides_of_0():
    scale = ColourScale.of(np.array([-1.0, 3.0, np.nan]), signed=True)
    assert scale.vmin == -scale.vmax
    assert 2.9 < scale.vmax <= 3
    assert scale.colours(scale.norm(0.0)) == DIVERGING(0.5)


def test_one_extreme_token_does_not_pale_all_others():
    values = np.append(np.linspace(0, 1, 999), 1e6)
    assert ColourScale.of(values, signed=False).vmax < 1.01
    assert ColourScale.of(values - 0.5, signed=True).vmax < 1


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_scores_that_are_all_alike_have_a_scale(signed, value):
    scale = ColourScale.of(np.full(4, value), signed)
    assert scale.vmin < scale.vmax


def cielab(colours: list[str]) -> np.ndarray:
    """L*, a*, b* under D65."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(linear @ to_xyz.T / (0.9505, 1, 1.089)).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def test_colours_step_evenly_so_that_no_score_seems_to_jump():
    lightness = np.diff(cielab(ColourScale(0.0, 1.0, SEQUENTIAL).stops())[:, 0])
    assert lightness.min() > 0.8 * lightness.mean()  # one direction: it survives grey print and colour blindness
    assert lightness.max() < 1.2 * lightness.mean()
    colours = cielab(ColourScale(-1.0, 1.0, DIVERGING).stops())
    steps = np.linalg.norm(np.diff(colours, axis=0), axis=1)
    assert steps.min() > 0.9 * steps.mean()
    assert steps.max() < 1.1 * steps.mean()
    assert colours[:, 0].argmax() == 8  # the middle is the lightest
    assert colours[0, 2] < -20 < 20 < colours[-1, 2]  # blue against red, which all kinds of colour blindness tell apart


@given(values=scores)
def test_ranks_keep_the_order_and_nothing_else(values):
    rank = ranked(values, signed=False)
    assert 0 <= rank.min() <= rank.max() <= 1
    np.testing.assert_array_equal(np.sign(rank[:, None] - rank), np.sign(values[:, None] - values))
    if len(np.unique(values)) == len(values) > 1:
        np.testing.assert_allclose(np.sort(rank), np.linspace(0, 1, len(values)))


@given(values=scores)
def test_ranks_with_a_sign_keep_it(values):
    rank, strength = ranked(values, signed=True), np.abs(values)
    assert np.abs(rank).max() <= 1
    np.testing.assert_array_equal(np.sign(rank), np.sign(values))
    some = values != 0
    order = np.sign(np.abs(rank)[some][:, None] - np.abs(rank)[some])
    np.testing.assert_array_equal(order, np.sign(strength[some][:, None] - strength[some]))
