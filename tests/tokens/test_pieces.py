import tracemalloc

import numpy as np
import pytest

from longvit.config import EmbeddingInput, PixelInput
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
    piece = SlidePieces(large, PixelInput(patch_px=16), tokens=64)
    rank_l, batch = piece.read(0)
    assert batch.rc_BL2.data_ptr() == piece.rc_L2.data_ptr()
    assert rank_l.data_ptr() == piece.rank_L.data_ptr()


@pytest.mark.parametrize("tokens", [1, 64, 10_000])
def test_tokens_are_the_same_whatever_the_pieces(large, tokens):
    pieces = SlidePieces(large, PixelInput(patch_px=16), tokens)
    assert len(pieces) == {1: 100, 64: 25, 10_000: 1}[tokens]
    whole = read_tokens({"large": large.path}, PixelInput(patch_px=16), ("large",))
    assert pieces.gathered().x.equal(whole.x)
    assert pieces.gathered().rc_BL2.equal(whole.rc_BL2)


def test_tokens_of_embeddings_are_float32_in_raster_order(save_store):
    store = save_store("a", [[1, 0], [0, 3], [0, 1]])
    add_embeddings(store.path, "e", np.array([[1], [2], [3]], np.float16), {})
    batch = SlidePieces(store, EmbeddingInput(encoder="e", dim=1), tokens=2).gathered()
    assert batch.x.flatten().tolist() == [3, 2, 1]
    assert str(batch.x.dtype) == "torch.float32"
