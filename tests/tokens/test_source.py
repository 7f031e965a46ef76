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


def halved() -> np.ndarray:
    """A mask of 4 x 4 tiles, 8 x 8 pixels each: the left five of eight columns of each tile are tissue."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:, np.arange(32) % 8 < 5] = 1
    return mask


@pytest.mark.parametrize(
    ("least", "columns"), [(0, [0, 1, 2, 3]), (0.5, [0, 1, 2]), (0.51, [0, 1]), (1, [0, 1]), (1e-4, [0, 1, 2])]
)
def test_patches_with_less_tissue_are_left_out(least, columns, save_store):
    store = save_store("a", [[0, 1], [2, 0]], overview_mask=halved(), grid_shape=(4, 4))
    source, all_of_it = (token_source(store, PixelInput(patch_px=16, min_tissue=m)) for m in (least, 0))
    assert len(source) == len(source.rc) == 2 * 4 * len(columns)
    kept = np.isin(all_of_it.rc[:, 1] % 4, columns)
    assert source.rc.tolist() == all_of_it.rc[kept].tolist()
    tiles = np.array([1, 0])
    inside = np.isin(np.arange(32) % 4, columns)
    assert (source.read(tiles) == all_of_it.read(tiles)[inside]).all()
    assert (source.rc[source.of_tiles(tiles)] == all_of_it.rc[all_of_it.of_tiles(tiles)][inside]).all()
    assert source.tile.tolist() == [0] * 4 * len(columns) + [1] * 4 * len(columns)


def test_a_tile_without_tissue_keeps_one_patch(save_store):
    mask = np.zeros((32, 32), np.uint8)
    mask[20, 3] = 1  # a single pixel in the tile at 2, 0, in the patch at 2, 1
    store = save_store("a", [[0, 1], [2, 0]], overview_mask=mask, grid_shape=(4, 4))
    source = token_source(store, PixelInput(patch_px=16, min_tissue=0.3))
    assert source.rc.tolist() == [[0, 4], [10, 1]]
    assert source.read(np.array([0, 1])).shape == (2, 768)


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
