import numpy as np
import pytest

from preprocessing.store import patch_tissue as module
from preprocessing.store.patch_tissue import patch_tissue
from preprocessing.tiling.grid import tissue_share

RC = [[row, column] for row in range(3) for column in range(5)]


@pytest.mark.parametrize("at_once", [1, 1 << 20])
@pytest.mark.parametrize("size", [(24, 40), (13, 29), (240, 401)])
@pytest.mark.parametrize("per_side", [1, 2, 7])
def test_patches_have_the_shares_of_a_grid_of_tiles_as_small(at_once, size, per_side, save_store, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    mask = np.random.default_rng(0).integers(0, 4, size).astype(np.uint8)
    store = save_store("a", RC, overview_mask=mask, grid_shape=(3, 5), size_l0=(600, 330))
    side = store.side_l0[0] / per_side
    grid = tissue_share(mask, store.size_l0, side, (3 * per_side, 5 * per_side))
    expected = grid.reshape(3, per_side, 5, per_side).swapaxes(1, 2).reshape(15, -1)
    np.testing.assert_allclose(patch_tissue(store, per_side), expected, atol=2e-5)


def test_tiles_off_the_grid_are_measured_where_they_are(save_store):
    mask = np.zeros((32, 32), np.uint8)
    mask[4:8, 4:8] = 1  # level-0 pixels 64 to 128
    store = save_store("a", [[0, 0], [0, 0]], overview_mask=mask, grid_shape=(4, 4), lattice=False)
    store._kept["xy_l0"] = np.array([[64, 64], [32, 0]])
    assert patch_tissue(store, 2).tolist() == [[1, 0, 0, 0], [0, 0, 0.5, 0.5]]
