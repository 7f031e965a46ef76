import numpy as np
import pytest

from longvit.config import EmbeddingInput, PixelInput
from longvit.tokens.source import EmbeddingSource, PixelSource, patchify, token_source
from preprocessing.errors import StoreError
from preprocessing.store.features import add_embeddings


def test_patches_are_tokens_tile_after_tile_and_row_by_row(save_store):
    store = save_store("a", [[0, 1], [2, 0]])
    source = token_source(store, PixelInput(patch_px=32))
    assert type(source) is PixelSource
    assert (source.width, source.per_side, source.per_tile) == (3 * 32**2, 2, 4)
    assert source.rc.tolist() == [[0, 2], [0, 3], [1, 2], [1, 3], [4, 0], [4, 1], [5, 0], [5, 1]]
    x = source.read(np.array([1, 0]))
    assert x.dtype == source.dtype == np.uint8
    assert (x == patchify(store.read_tiles([1, 0]), 32).reshape(8, -1)).all()


def test_embeddings_are_a_token_for_each_tile(save_store):
    store = save_store("a", [[0, 1], [2, 0]])
    add_embeddings(store.path, "e", np.array([[1, 2, 3], [4, 5, 6]], np.float16), {})
    source = token_source(store, EmbeddingInput(encoder="e", dim=3))
    assert type(source) is EmbeddingSource
    assert (source.width, source.per_tile, source.rc.tolist()) == (3, 1, [[0, 1], [2, 0]])
    assert source.read(np.array([1])).tolist() == [[4, 5, 6]]
    assert source.read(np.array([1])).dtype == source.dtype == np.float32


def test_a_store_that_does_not_fit_has_no_source(save_store):
    store = save_store("a", [[0, 1]])
    with pytest.raises(StoreError, match="patches of 24 pixels do not divide tiles of 64"):
        token_source(store, PixelInput(patch_px=24))
    add_embeddings(store.path, "e", np.zeros((1, 3), np.float32), {})
    with pytest.raises(StoreError, match="embeddings/e are 3 wide, but the encoder expects 4"):
        token_source(store, EmbeddingInput(encoder="e", dim=4))
