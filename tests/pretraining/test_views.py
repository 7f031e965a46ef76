from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from longvit.config import EmbeddingInput, PixelInput, ViewsConfig
from longvit.model.rank_group import rank_share
from longvit.pretraining.sampling import DrawSampler
from longvit.pretraining.views import (
    VIEWS,
    PieceDataset,
    RegionDataset,
    collate_views,
    draw_piece,
    draw_region,
    place,
    tissue_share_of_square,
    turn,
)
from longvit.tokens.stain import stain_map
from preprocessing.store.features import add_embeddings
from preprocessing.store.store import PatchStore, find_stores, open_store

PATCH = 16
PIXELS, PLACES = PixelInput(patch_px=PATCH), EmbeddingInput(encoder="places", dim=3)


class FakeStore(PatchStore):
    """What `draw_region` looks at, without a file: a grid of 4 x 5 tiles of 64 pixels."""

    rc = tissue = None

    def __init__(self, rc: list[list[int]], tissue: list[float]) -> None:
        self.path, self.mpp, self.tile_st, self.grid_shape = Path("none"), 0.5, 64, (4, 5)
        self.lattice = True
        self.rc, self.tissue = np.array(rc, np.int32), np.array(tissue, np.float32)

    def __len__(self) -> int:
        return len(self.rc)


def equal(a, b) -> bool:
    return all(
        torch.equal(x, y)
        for one, other in zip(a, b, strict=True)
        for x, y in ((one.x, other.x), (one.rc_BL2, other.rc_BL2), (one.mask_BL, other.mask_BL))
    )


@pytest.fixture
def dataset(cohort, views) -> RegionDataset:
    return RegionDataset(list(find_stores(cohort.stores).values()), PIXELS, views, draws_per_slide=2, seed=3)


def test_crops_are_in_the_normalised_colours_of_their_slide(cohort):
    views = ViewsConfig(region_px=128, global_px=64, local_px=32, local_views=2, stain_jitter=0, blur_probability=0)
    stores = list(find_stores(cohort.stores).values())
    plain, normal = (
        RegionDataset(stores, PixelInput(patch_px=PATCH, stain=stain), views, draws_per_slide=2, seed=3)
        for stain in ("none", "reinhard")
    )
    for draw in range(4):
        change = stain_map(open_store(plain.turns[draw]), "reinhard")
        for one, other in zip(plain[draw], normal[draw], strict=True):
            colours = one.x.numpy().reshape(-1, 3, PATCH**2).transpose(0, 2, 1)
            expected = change.apply(colours[:, None]).reshape(-1, PATCH**2, 3).transpose(0, 2, 1)
            np.testing.assert_array_equal(other.x.numpy().reshape(expected.shape), expected)
            assert not torch.equal(one.x, other.x)


def test_a_draw_is_two_global_crops_and_then_the_local_ones(dataset):
    assert len(dataset) == 28
    lengths = [view.lengths.tolist() for view in dataset[0]]
    assert lengths == [[16], [16], [4], [4]]


@given(draw=st.integers(0, 10_000))
def test_a_draw_depends_on_seed_and_number_alone(cohort, draw):
    views = ViewsConfig(region_px=128, global_px=64, local_px=32, local_views=1)
    stores = list(find_stores(cohort.stores).values())
    one, same, other = (RegionDataset(stores, PIXELS, views, 1, seed) for seed in (3, 3, 4))
    same[draw // 2]  # what was drawn before leaves no trace
    assert equal(one[draw], same[draw])
    assert not equal(one[draw], other[draw])


def test_batches_do_not_depend_on_the_number_of_workers(dataset):
    def batches(workers: int) -> list:
        sampler = DrawSampler(8, seed=0)
        return list(DataLoader(dataset, 4, sampler=sampler, num_workers=workers, collate_fn=collate_views))

    expected = batches(0)
    for workers in (1, 2):
        assert all(equal(one, other) for one, other in zip(batches(workers), expected, strict=True))


def test_draws_after_a_resumed_epoch_are_those_of_the_undisturbed_run(dataset):
    def epoch_1(workers: int, *, resumed: bool) -> list:
        sampler = DrawSampler(8, seed=0)
        batches = DataLoader(dataset, 4, sampler=sampler, num_workers=workers, collate_fn=collate_views)
        if not resumed:
            list(batches)
        sampler.set_epoch(1)
        return list(batches)

    expected = epoch_1(0, resumed=False)
    assert all(equal(one, other) for one, other in zip(epoch_1(0, resumed=True), expected, strict=True))
    assert all(equal(one, other) for one, other in zip(epoch_1(2, resumed=True), expected, strict=True))


def test_draws_go_round_the_patients_and_then_round_their_slides(save_store, views):
    stores = [
        save_store(f"s{i}", [[0, 0]], np.full((1, 64, 64, 3), 60 * i, np.uint8), grid_shape=(1, 1)) for i in (1, 2, 3)
    ]
    plain = views.model_copy(update={"stain_jitter": 0.0, "blur_probability": 0.0, "region_px": 64, "global_px": 64})
    dataset = RegionDataset([store.path for store in stores], PIXELS, plain, 2, 0, {"s1": "p", "s2": "p"})
    assert [round(float(dataset[i][0].x.float().mean()) / 60) for i in range(6)] == [1, 3, 2, 3, 1, 3]


def test_draws_go_round_the_slides(save_store, views):
    stores = [
        save_store(f"s{i}", [[0, 0]], np.full((1, 64, 64, 3), 60 * i, np.uint8), grid_shape=(1, 1)) for i in (1, 2, 3)
    ]
    plain = views.model_copy(update={"stain_jitter": 0.0, "blur_probability": 0.0, "region_px": 64, "global_px": 64})
    dataset = RegionDataset([store.path for store in stores], PIXELS, plain, 2, 0)
    assert [round(float(dataset[i][0].x.float().mean()) / 60) for i in range(6)] == [1, 2, 3, 1, 2, 3]


def test_crops_of_one_region_get_unrelated_places(save_store, views):
    # Crops as large as their region show the same pixels, so places that followed the pixels would be equal.
    store = save_store("slide", [[row, column] for row in range(4) for column in range(5)])
    whole = views.model_copy(update={"region_px": 64, "global_px": 64, "local_px": 64, "local_views": 0})
    dataset = RegionDataset([store.path], PIXELS, whole, 200, 0)
    corners = np.array([[view.rc_BL2[0, 0].tolist() for view in dataset[i]] for i in range(200)])
    for axis, places in ((0, 13), (1, 17)):  # a grid of 16 x 20 tokens has room for 4 x 4 of them at these
        assert set(corners[:, :, axis].ravel()) == set(range(places))
        assert abs(np.corrcoef(corners[:, 0, axis], corners[:, 1, axis])[0, 1]) < 0.2


def test_the_tokens_of_a_crop_are_neighbours_on_the_grid_of_the_slide(dataset):
    for view in dataset[5]:
        side = int(view.lengths) ** 0.5
        rc = view.rc_BL2[0]
        assert (rc - rc[0]).tolist() == [[i, j] for i in range(int(side)) for j in range(int(side))]
        assert (rc >= 0).all()
        assert (rc < torch.tensor([16, 20])).all()


def test_a_crop_shows_pixels_of_the_slide_not_rescaled(save_store, views):
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    ramp = np.stack([2 * x, 2 * y, np.zeros_like(x)], axis=-1).astype(np.uint8)[None]
    plain = views.model_copy(update={"region_px": 64, "stain_jitter": 0.0, "blur_probability": 0.0})
    store = save_store("slide", [[0, 0]], ramp, grid_shape=(1, 1))
    dataset = RegionDataset([store.path], PIXELS, plain, 50, 0)
    for i in range(50):
        patch = dataset[i][2].x[0, 0].reshape(3, PATCH, PATCH)[:2].double()
        steps = [float(patch.diff(dim=axis).mean(dim=(1, 2)).abs().max()) for axis in (1, 2)]
        assert steps == pytest.approx([2, 2], abs=0.3)  # two levels a pixel along both axes, however it is turned


@pytest.mark.parametrize(("rank", "ranks"), [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (11, 16)])
def test_a_rank_reads_the_tiles_of_its_own_tokens_and_nothing_else(rank, ranks, save_store, monkeypatch):
    store = save_store("large", [[row, column] for row in range(8) for column in range(8)], grid_shape=(8, 8))
    views = ViewsConfig(region_px=512, global_px=256, local_px=64, local_views=1, blur_probability=0.5)
    whole = RegionDataset([store.path], PIXELS, views, 20, 0)
    own = RegionDataset([store.path], PIXELS, views, 20, 0, share=partial(rank_share, rank=rank, ranks=ranks))
    read, decoded = PatchStore.read_tiles, []
    monkeypatch.setattr(PatchStore, "read_tiles", lambda self, some: decoded.extend(some) or read(self, some))
    for draw in range(20):
        decoded.clear()
        expected = whole[draw]
        all_of_it = len(decoded)
        decoded.clear()
        for view, one in zip(own[draw], expected, strict=True):
            part = rank_share(int(one.lengths), rank, ranks)
            assert view.x[:, part.start : part.stop].equal(one.x[:, part.start : part.stop])
            assert view.rc_BL2.equal(one.rc_BL2)
            assert not view.x[:, : part.start].any()
            assert not view.x[:, part.stop :].any()
        assert len(decoded) <= all_of_it
        if ranks == 16:  # a row of patches, 16 of 256 pixels, with 5 more where a blur needs them; the local crop's 16
            assert len(set(decoded)) == len(decoded) <= 2 * (2 * 5) + 4


shares = st.lists(st.floats(0, 1), min_size=4, max_size=4)


@given(tissue=shares, min_tissue=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_region_is_the_first_tried_with_enough_tissue_or_else_the_best(tissue, min_tissue, seed):
    store, rng = FakeStore([[0, 0], [1, 1], [2, 3], [3, 0]], tissue), np.random.default_rng(seed)
    tried = [tissue_share_of_square(store, draw_region(store, 128, 0.0, rng), 128) for _ in range(100)]
    share = tissue_share_of_square(store, draw_region(store, 128, min_tissue, np.random.default_rng(seed)), 128)
    assert share == next((one for one in tried if one >= min_tissue), max(tried))


@given(side=st.integers(1, 400), seed=st.integers(0, 99))
def test_a_region_stays_inside_of_the_slide_as_far_as_the_slide_is_large_enough(side, seed):
    corner = draw_region(FakeStore([[0, 0], [3, 4]], [1, 1]), side, 0.5, np.random.default_rng(seed))
    width, height = 5 * 64, 4 * 64
    assert 0 <= corner[0] <= max(0, width - side)
    assert 0 <= corner[1] <= max(0, height - side)


@given(tissue=shares, x=st.integers(-64, 400), y=st.integers(-64, 400), side=st.integers(1, 300))
def test_the_share_of_tissue_is_that_of_a_map_with_every_pixel(tissue, x, y, side):
    store = FakeStore([[0, 0], [1, 1], [2, 3], [3, 0]], tissue)
    share_of_pixel = np.zeros((1000, 1000))
    for (row, column), share in zip(store.rc, tissue, strict=True):
        share_of_pixel[200 + row * 64 : 264 + row * 64, 200 + column * 64 : 264 + column * 64] = share
    expected = share_of_pixel[200 + y : 200 + y + side, 200 + x : 200 + x + side].mean()
    assert tissue_share_of_square(store, np.array([x, y]), side) == pytest.approx(expected, abs=1e-6)


def test_what_lies_outside_of_a_small_slide_is_white(save_store, views):
    store = save_store("slide", [[0, 0]], np.zeros((1, 64, 64, 3), np.uint8), grid_shape=(1, 1))
    plain = views.model_copy(update={"stain_jitter": 0.0, "blur_probability": 0.0, "global_px": 128})
    pixels = RegionDataset([store.path], PIXELS, plain, 1, 0)[0][0].x.float()
    assert float((pixels == 255).float().mean()) == 0.75


def test_views_are_collated_view_by_view(dataset):
    batches = collate_views([dataset[0], dataset[1], dataset[2]])
    assert [batch.lengths.tolist() for batch in batches] == [[16] * 3, [16] * 3, [4] * 3, [4] * 3]
    assert torch.equal(batches[2].x[1], dataset[1][2].x[0])


@pytest.fixture
def embedded(save_store) -> PatchStore:
    """A slide of 3 x 5 tiles, embedded as (row, column, 1)."""
    rc = [[row, column] for row in range(3) for column in range(5)]
    store = save_store("embedded", rc)
    add_embeddings(store.path, "places", np.array([[*place, 1] for place in rc], np.float16), {})
    return open_store(store.path)


def test_views_of_embeddings_are_pieces_of_the_slide_of_the_configured_sizes(embedded):
    views = ViewsConfig(local_views=3, global_tiles=0.6, local_tiles=0.2, drop_tiles=0.0)
    pieces = PieceDataset([embedded.path], PLACES, views, 1, 0)[0]
    assert [int(piece.lengths) for piece in pieces] == [9, 9, 3, 3, 3]
    for piece in pieces:
        assert piece.x.dtype == torch.float16  # as stored: half of what float32 would take through the queue
        assert (piece.x[0, :, 2] == 1).all()
        assert len(np.unique(piece.x[0].numpy(), axis=0)) == piece.x.shape[1]


def test_tokens_of_a_piece_lie_to_each_other_as_their_tiles_do(embedded):
    views = ViewsConfig(local_views=0, global_tiles=0.6, drop_tiles=0.3)
    dataset = PieceDataset([embedded.path], PLACES, views, 40, 0)
    for i in range(40):
        for piece in dataset[i]:
            true, given_ = piece.x[0, :, :2].double(), piece.rc_BL2[0].double()
            assert torch.equal(torch.cdist(true, true), torch.cdist(given_, given_))
            assert (given_ >= 0).all()
            order = given_[:, 0] * 100 + given_[:, 1]
            assert torch.equal(order, order.sort().values)  # raster order


def test_pieces_of_one_slide_get_unrelated_places(embedded):
    views = ViewsConfig(local_views=0, global_tiles=0.01)
    dataset = PieceDataset([embedded.path], PLACES, views, 200, 0)
    tokens = [piece for i in range(200) for piece in dataset[i]]
    true, placed = (
        np.array([t.tolist() for t in of]) for of in ([p.x[0, 0] for p in tokens], [p.rc_BL2[0, 0] for p in tokens])
    )
    for axis in (0, 1):
        assert abs(np.corrcoef(true[:, axis], placed[:, axis])[0, 1]) < 0.2


grids = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40, unique=True).map(np.array)


@given(rc=grids, share=st.floats(0.01, 1), drop=st.floats(0, 0.99), seed=st.integers(0, 99))
def test_a_piece_holds_tiles_once_and_at_least_one_and_never_more_than_its_share(rc, share, drop, seed):
    piece = draw_piece(rc, share, drop, np.random.default_rng(seed))
    assert 1 <= len(piece) <= max(1, round(share * len(rc)))
    assert len(set(piece.tolist())) == len(piece)


@given(rc=grids, share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_a_piece_has_no_tile_farther_than_one_that_it_lacks(rc, share, seed):
    piece = draw_piece(rc, share, 0.0, np.random.default_rng(seed))
    far = np.abs(rc - rc[piece[0]]).max(axis=1)  # the first is the one in the middle
    assert far[piece].max() <= min(np.delete(far, piece), default=99)


def test_the_share_of_dropped_tiles_is_the_configured_one():
    rc = np.stack(np.mgrid[0:30, 0:30], axis=-1).reshape(-1, 2)
    kept = [len(draw_piece(rc, 1.0, 0.2, np.random.default_rng(seed))) for seed in range(20)]
    assert np.mean(kept) / 900 == pytest.approx(0.8, abs=0.02)


def test_all_eight_turns_and_flips_of_a_grid_occur_and_nothing_else():
    found = {turn(np.array([[1, 2]]), np.random.default_rng(seed)).tobytes() for seed in range(100)}
    assert len(found) == 8
    assert {tuple(np.abs(np.frombuffer(one, np.int64))) for one in found} == {(1, 2), (2, 1)}


@given(rc=grids, rows=st.integers(1, 30), columns=st.integers(1, 30), seed=st.integers(0, 99))
def test_tokens_are_moved_as_one_and_stay_on_a_grid_that_is_large_enough(rc, rows, columns, seed):
    grid = np.array([rows, columns])
    moved = place(rc, grid, np.random.default_rng(seed))
    assert len(np.unique(moved - rc, axis=0)) == 1
    assert (moved >= 0).all()
    assert (moved.max(axis=0) < np.maximum(grid, np.ptp(rc, axis=0) + 1)).all()


def test_the_kind_of_token_decides_what_a_view_is(embedded, views):
    for source, kind in ((PIXELS, RegionDataset), (PLACES, PieceDataset)):
        assert VIEWS[source.kind] is kind
        assert len(kind([embedded.path], source, views, 2, 0)[0]) == 4
