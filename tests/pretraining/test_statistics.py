import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longvit.pretraining.statistics import effective_rank, feature_statistics, spread


def features(rank: int, count: int = 400, width: int = 16, seed: int = 0) -> torch.Tensor:
    """Points that scatter alike in `rank` orthogonal directions around a common one, far from 0."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return 100 * axes[-1] + torch.randn(count, rank, generator=generator) @ axes[:rank]


def test_the_spread_is_0_at_collapse_and_about_1_for_scattered_features():
    torch.manual_seed(0)
    assert spread(torch.ones(8, 5)) == pytest.approx(0, abs=1e-6)
    assert spread(torch.randn(4000, 64)) == pytest.approx(1, abs=0.02)


@given(rank=st.integers(1, 15), seed=st.integers(0, 99))
def test_the_effective_rank_counts_the_directions_that_features_scatter_in(rank, seed):
    assert effective_rank(features(rank, seed=seed)) == pytest.approx(rank, rel=0.06, abs=0.1)


@given(rank=st.integers(1, 15), scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_the_statistics_know_neither_the_scale_of_features_nor_the_axes_of_their_space(rank, scale, seed):
    turned = features(rank, seed=seed) @ torch.linalg.qr(torch.randn(16, 16))[0] * scale
    assert effective_rank(turned) == pytest.approx(float(effective_rank(features(rank, seed=seed))), rel=1e-2)


def test_the_effective_rank_of_features_that_are_all_the_same_is_1():
    assert effective_rank(torch.ones(8, 5)) == pytest.approx(1, abs=1e-6)


def test_a_collapse_to_a_line_shows_in_the_rank_though_not_in_the_spread():
    torch.manual_seed(0)
    line = torch.randn(64, 1) * torch.randn(1, 16)
    found = feature_statistics(line)
    assert found["feature_std"] > 0.8
    assert found["effective_rank"] == pytest.approx(1, abs=1e-2)


def test_statistics_of_half_precision_are_computed_in_full():
    exact = feature_statistics(features(3))
    rounded = feature_statistics(features(3).bfloat16())
    assert all(value.dtype == torch.float32 for value in rounded.values())
    assert rounded["feature_std"] == pytest.approx(float(exact["feature_std"]), rel=0.3)
