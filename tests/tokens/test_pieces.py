import tracemalloc

import numpy as np
import pytest
import torch

from longvit.config import EmbeddingInput, PixelInput
from longvit.tokens.batch import TokenBatch
from longvit.tokens.joined import JoinedPieces
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.sequences import read_tokens
from preprocessing.store.features import add_embeddings
from preprocessing.store.store import PatchStore

GRID = [[row, column] for row in range(10) for column in range(10)]


@pytest.fixture
def large(save_store) -> PatchStore:
    """A slide of 100 tiles of 12 kB."""
    return save_store("large", GRID, grid_shape=(10, 10))


def test_the_pixels_of_a_slide_are_in_memory_once_on_their_way_to_the_model(large):
    source, size = PixelInput(patch_px=16), 100 * 64 * 64 * 3
    read = lambda: JoinedPieces([SlidePieces(large, source, tokens=64)]).gathered()
    read()  # the store keeps its small arrays
    tracemalloc.start()
    try:
        batch = read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert batch.x.nbytes == size
    assert size < peak < 1.3 * size


def test_a_batch_of_one_shares_the_memory_of_its_tokens(large):
    x, rc = torch.zeros(3, 8), torch.zeros(3, 2, dtype=torch.int64)
    batch = TokenBatch.of_one(x, rc)
    assert batch.x.data_ptr() == x.data_ptr()
    assert batch.rc_BL2.data_ptr() == rc.data_ptr()


@pytest.mark.parametrize("tokens", [1, 64, 10_000])
@pytest.mark.parametrize("cut", [1, 16, 37, 800, 1599])
def test_a_part_of_the_sequence_is_read_from_its_own_tiles(large, tokens, cut, monkeypatch):
    other, read, tiles = large, PatchStore.read_tiles, []
    monkeypatch.setattr(PatchStore, "read_tiles", lambda self, some: tiles.extend(some) or read(self, some))
    pieces = JoinedPieces([SlidePieces(store, PixelInput(patch_px=16), tokens) for store in (large, other)])
    whole = pieces.gathered()
    for part in (range(cut), range(cut, 3200), range(cut, cut + 1)):
        tiles.clear()
        some, expected = pieces.gathered(part), whole.some(slice(part.start, part.stop))
        assert some.x.equal(expected.x)
        assert some.rc_BL2.equal(expected.rc_BL2)
        ranks = pieces.rank_L.view(200, 16)
        of_part = ((ranks >= part.start) & (ranks < part.stop)).any(1).nonzero().flatten() % 100
        assert sorted(tiles) == sorted(of_part.tolist())


@pytest.mark.parametrize("tokens", [1, 64, 10_000])
def test_tokens_are_the_same_whatever_the_pieces(large, tokens):
    pieces = SlidePieces(large, PixelInput(patch_px=16), tokens)
    assert len(list(pieces.ahead(1))) == {1: 100, 64: 25, 10_000: 1}[tokens]
    whole = read_tokens({"large": large.path}, PixelInput(patch_px=16), ("large",))
    assert pieces.gathered().x.equal(whole.x)
    assert pieces.gathered().rc_BL2.equal(whole.rc_BL2)


@pytest.mark.parametrize("tokens", [1, 64, 10_000])
def test_pieces_of_a_slide_without_its_glass_are_its_tokens_with_tissue(tokens, save_store):
    mask = (np.random.default_rng(0).random((80, 80)) < 0.6).astype(np.uint8)
    store = save_store("holes", GRID[::3], grid_shape=(10, 10), overview_mask=mask)
    whole, pieces = (SlidePieces(store, PixelInput(patch_px=16, min_tissue=m), tokens) for m in (0, 0.7))
    wanted = pieces.source.kept.ravel()[whole.rank_L.argsort().numpy()]
    assert 0.1 < wanted.mean() < 0.9
    all_of_it, tissue = whole.gathered(), pieces.gathered()
    assert tissue.x.equal(all_of_it.x[:, wanted])
    assert tissue.rc_BL2.equal(all_of_it.rc_BL2[:, wanted])
    part = range(17, 123)
    assert pieces.gathered(part).x.equal(tissue.x[:, 17:123])


def test_tokens_of_embeddings_are_float32_in_raster_order(save_store):
    store = save_store("a", [[1, 0], [0, 3], [0, 1]])
    add_embeddings(store.path, "e", np.array([[1], [2], [3]], np.float16), {})
    batch = SlidePieces(store, EmbeddingInput(encoder="e", dim=1), tokens=2).gathered()
    assert batch.x.flatten().tolist() == [3, 2, 1]
    assert str(batch.x.dtype) == "torch.float32"
