import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from longvit.config import LearnedPosition, SinCosPosition
from longvit.model import PRESETS, LongViT
from longvit.model.position import LearnedTable, build_position, extent_of, rotated, sincos_position
from longvit.tokens.batch import TokenBatch


def at(rc: torch.Tensor) -> TokenBatch:
    return TokenBatch(torch.zeros(*rc.shape[:2], 1), rc, torch.ones(rc.shape[:2]).bool())


def grid(rows: int, columns: int) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))[None]


def prov_gigapath_table(width: int, side: int) -> np.ndarray:
    """MoCo v3's table as Prov-GigaPath fills it, in double precision; a tile's index is `column * side + row`."""
    along_x, along_y = np.meshgrid(np.arange(side), np.arange(side))
    omega = 1 / 10_000 ** (np.arange(width // 4) / (width / 4))
    halves = [np.outer(positions.ravel(), omega) for positions in (along_x, along_y)]
    return np.concatenate([f(half) for half in halves for f in (np.sin, np.cos)], axis=1)


def prov_gigapath_row(width: int, position: int) -> np.ndarray:
    """Half a vector of that table, for one row or column."""
    angle = position / 10_000 ** (np.arange(width // 4) / (width / 4))
    return np.concatenate([np.sin(angle), np.cos(angle)])


def golden_table(golden, stretch: str = "forward") -> LearnedTable:
    position = LearnedTable(LearnedPosition(grid=8, stretch=stretch), width=48)
    position.table.data.copy_(golden("longvit_tiny")["w.pos_embed"])
    return position


def test_sines_and_cosines_are_those_of_prov_gigapath():
    table = torch.from_numpy(prov_gigapath_table(48, side=20)).float()
    rc = grid(20, 20)
    assert_close(sincos_position(rc, 48)[0], table[rc[0, :, 1] * 20 + rc[0, :, 0]], rtol=1e-5, atol=1e-5)


@given(place=st.tuples(*[st.integers(0, 10**5)] * 2), width=st.sampled_from([4, 64, 384]))
def test_every_place_has_a_position_of_the_same_length(place, width):
    position = build_position(SinCosPosition(), width)(at(torch.tensor([[place]])))
    assert position.shape == (1, 1, width)
    assert_close(position.square().sum(-1), torch.full((1, 1), width / 2))


@pytest.mark.parametrize(("image", "rows", "columns"), [("img256", 8, 8), ("img320", 10, 10), ("img_h256_w384", 8, 12)])
def test_the_learned_table_is_stretched_as_in_the_official_forward(golden, image, rows, columns):
    position = golden_table(golden)(at(grid(rows, columns)))
    assert_close(position, golden("longvit_tiny")[f"{image}.pos"], rtol=1e-4, atol=2e-6)


def test_the_learned_table_is_stretched_as_where_the_official_code_loads_a_checkpoint(golden):
    position = golden_table(golden, "load")(at(grid(10, 10)))
    assert_close(position, golden("longvit_tiny")["pos_loadtime_10x10"], rtol=1e-4, atol=2e-6)


def test_the_two_official_interpolations_differ(golden):
    position = golden_table(golden)(at(grid(10, 10)))
    assert not torch.allclose(position, golden("longvit_tiny")["pos_loadtime_10x10"], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("stretch", ["forward", "load"])
def test_a_grid_of_the_tables_own_size_gets_the_table(golden, stretch):
    position = golden_table(golden, stretch)
    assert_close(position(at(grid(8, 8))), position.table.data, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "position", [SinCosPosition(), LearnedPosition(grid=8), LearnedPosition(grid=8, stretch="load")]
)
@given(cuts=st.lists(st.integers(1, 76), unique=True, max_size=4), shift=st.integers(0, 10**4))
def test_pieces_of_a_slide_have_the_places_that_they_have_in_the_whole(position, cuts, shift):
    module, whole = build_position(position, 16), at(grid(11, 7) + shift)
    pieces = torch.tensor_split(whole.rc_BL2, sorted(cuts), dim=1)
    placed = [module(at(piece), extent_of(whole.rc_BL2, whole.mask_BL)) for piece in pieces]
    assert_close(torch.cat(placed, dim=1), module(whole), rtol=0, atol=1e-6)


def test_places_beyond_prov_gigapaths_table_are_their_own():
    # There, row 1000 of a column is row 0 of the next one.
    beyond = sincos_position(torch.tensor([[[1000, 3], [0, 4], [5000, 5000]]]), 768)[0]
    assert (beyond[0] - beyond[1]).norm() > 1
    expected = prov_gigapath_row(768, 5000)
    assert_close(beyond[2], torch.from_numpy(np.tile(expected, 2)).float(), rtol=0, atol=1e-3)


@given(shift=st.tuples(*[st.integers(0, 10**4)] * 2), seed=st.integers(0, 2**31))
def test_a_learned_position_depends_on_the_place_in_the_slide_and_on_no_other_token(shift, seed):
    torch.manual_seed(seed)
    position, rc = LearnedTable(LearnedPosition(grid=8), width=4), grid(11, 7)
    some = torch.cat([torch.tensor([0, 76]), torch.randperm(77)[:20]])  # the corners span the slide
    assert_close(position(at(rc[:, some] + torch.tensor(shift))), position(at(rc))[:, some], rtol=0, atol=1e-6)


def test_padding_does_not_stretch_the_table():
    position, rc = LearnedTable(LearnedPosition(grid=8), width=4), grid(3, 3)
    padded = torch.cat([rc, torch.full((1, 5, 2), 900)], dim=1)
    batch = TokenBatch(torch.zeros(1, 14, 1), padded, torch.arange(14)[None] < 9)
    assert_close(position(batch)[:, :9], position(at(rc)))


def test_a_slide_without_tokens_leaves_the_others_alone():
    position, rc = LearnedTable(LearnedPosition(grid=8), width=4), grid(3, 3).expand(2, -1, -1)
    mask = torch.tensor([[True], [False]]).expand(-1, 9)
    out = position(TokenBatch(torch.zeros(2, 9, 1), rc, mask))
    assert out.isfinite().all()
    assert_close(out[:1], position(at(rc[:1])))


@pytest.mark.parametrize("position", [LearnedPosition(grid=8), SinCosPosition()], ids=lambda position: position.kind)
def test_a_batch_of_empty_slides_is_encoded_as_nothing(position):
    encoder = LongViT(PRESETS["longvit_tiny"].model_copy(update={"position": position})).eval()
    nothing = TokenBatch(
        torch.zeros(2, 0, 3072, dtype=torch.uint8),
        torch.zeros(2, 0, 2, dtype=torch.int64),
        torch.zeros(2, 0, dtype=torch.bool),
    )
    assert encoder(nothing).shape == (2, 0, 64)
    assert encoder.represent(nothing).eq(0).all()


def test_the_table_learns():
    position = build_position(LearnedPosition(grid=4), 8)
    position(at(grid(9, 9))).square().sum().backward()
    assert position.table.grad.ne(0).all()


def logits(q: torch.Tensor, k: torch.Tensor, first: int) -> torch.Tensor:
    return torch.einsum("blhk,bmhk->bhlm", rotated(q, first), rotated(k, first))


@pytest.mark.parametrize("first", [1, 1000, 2**31])
def test_rotated_logits_depend_on_the_distance_alone(first):
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 9, 3, 8, dtype=torch.float64, generator=generator)
    assert_close(logits(q, k, first), logits(q, k, 0), atol=1e-5 if first == 2**31 else 1e-9, rtol=0)
    same = q[:, :1].expand_as(q), k[:, :1].expand_as(k)
    by_distance = logits(*same, 0)
    assert_close(by_distance[..., 1:, 1:], by_distance[..., :-1, :-1])
    assert not torch.allclose(by_distance[..., 1:, 0], by_distance[..., :-1, 0], atol=1e-3)


@pytest.mark.parametrize("width", [4, 6, 11])
def test_a_part_of_a_sequence_is_rotated_as_in_the_whole(width):
    x, turned = torch.randn(1, 20, 2, width), 2 * (width // 4)
    assert_close(rotated(x[:, 7:13], 7), rotated(x, 0)[:, 7:13])
    assert_close(rotated(x, 0)[..., turned:], x[..., turned:])
    spun_3 = torch.view_as_real(spun(x[:, 3, :, :turned], 8)).transpose(-1, -2).flatten(-2)
    assert_close(rotated(x, 5)[:, 3, :, :turned], spun_3)


def spun(x: torch.Tensor, place: int) -> torch.Tensor:
    """The pairs of channels as complex numbers, times exp(i place 10000 ** (-2 n / K)), n = 0, 1, ..."""
    half = x.shape[-1] // 2
    angle = place * 10_000 ** (-torch.arange(half) * 2 / x.shape[-1])
    return torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones(half), angle)


def test_heads_that_are_too_narrow_to_be_rotated_are_refused():
    with pytest.raises(ValueError, match="heads of 3 channels are too narrow"):
        rotated(torch.zeros(1, 2, 2, 3), 0)
