import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longvit.config import EmbeddingInput, PixelInput
from longvit.model.inputs import PixelTokens
from longvit.tokens import TokenBatch
from longvit.tokens.read import StoreScale, require_scale, slide_tokens
from longvit.tokens.source import patchify
from preprocessing.errors import StoreError
from preprocessing.store.arrays import REMAKE
from preprocessing.store.features import add_embeddings

PLACES = [[3, 1], [0, 4], [0, 0], [2, 2]]


@pytest.fixture
def store(save_store):
    return save_store("slide", PLACES)


@pytest.mark.parametrize("patch_px", [16, 32, 64])
def test_pixel_tokens_are_the_pixels_of_the_slide_at_their_places(store, patch_px):
    batch = slide_tokens(store, PixelInput(patch_px=patch_px))
    assert batch.lengths.tolist() == [len(PLACES) * (64 // patch_px) ** 2]
    for x, (row, column) in zip(batch.x[0].numpy(), batch.rc_BL2[0].tolist(), strict=True):
        region = store.read_region((column * patch_px, row * patch_px), (patch_px, patch_px))
        np.testing.assert_array_equal(x.reshape(3, patch_px, patch_px).transpose(1, 2, 0), region)


@pytest.mark.parametrize("patch_px", [16, 64])
def test_tokens_come_in_raster_order_over_the_whole_slide(store, patch_px):
    rc = slide_tokens(store, PixelInput(patch_px=patch_px)).rc_BL2[0].tolist()
    assert rc == sorted(rc)
    assert len(set(map(tuple, rc))) == len(rc)


def test_a_patch_is_flattened_as_the_weights_of_a_convolution_are():
    image = torch.randint(256, (1, 3, 32, 48), dtype=torch.uint8)
    patches = patchify(image.permute(0, 2, 3, 1).numpy(), 16)
    unfolded = image.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(3)
    np.testing.assert_array_equal(patches, unfolded.numpy())


@given(n=st.integers(1, 3), rows=st.integers(1, 3), columns=st.integers(1, 3), patch_px=st.integers(1, 5))
def test_patches_put_together_are_the_image(n, rows, columns, patch_px):
    shape = (n, rows * patch_px, columns * patch_px, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    patches = patchify(images, patch_px).reshape(n, rows, columns, 3, patch_px, patch_px)
    np.testing.assert_array_equal(patches.transpose(0, 1, 4, 2, 5, 3).reshape(shape), images)


def test_a_patch_that_does_not_divide_the_tile_is_refused(store):
    with pytest.raises(StoreError, match="patches of 24 pixels do not divide tiles of 64") as error:
        slide_tokens(store, PixelInput(patch_px=24))
    assert error.value.where == store.path
    assert "patch_px" in error.value.fix


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_embedding_tokens_are_one_for_each_tile_in_raster_order(store, dtype):
    vectors = np.arange(8, dtype=dtype).reshape(4, 2)
    add_embeddings(store.path, "uni", vectors, {})
    batch = slide_tokens(store, EmbeddingInput(encoder="uni", dim=2))
    assert batch.rc_BL2[0].tolist() == [[0, 0], [0, 4], [2, 2], [3, 1]]
    assert batch.x.dtype == torch.float32
    np.testing.assert_array_equal(batch.x[0], vectors[[2, 1, 3, 0]])


def test_embeddings_of_another_width_are_refused(store):
    add_embeddings(store.path, "uni", np.zeros((4, 3), np.float32), {})
    with pytest.raises(StoreError, match="embeddings/uni are 3 wide, but the encoder expects 2"):
        slide_tokens(store, EmbeddingInput(encoder="uni", dim=2))


def test_missing_embeddings_are_named(store):
    with pytest.raises(StoreError, match="'uni'"):
        slide_tokens(store, EmbeddingInput(encoder="uni", dim=2))


def test_what_is_read_is_what_the_encoder_takes(store):
    batch = slide_tokens(store, PixelInput(patch_px=32))
    assert isinstance(batch, TokenBatch)
    assert PixelTokens(PixelInput(), 8)(batch).shape == (1, 16, 8)


@pytest.mark.parametrize("mpp", [float("nan"), float("inf"), 0.0, -0.5])
def test_a_resolution_that_cannot_be_is_of_no_scale(save_store, tmp_path, mpp):
    stores = [save_store(name, PLACES) for name in ("a", "b")]
    for wrong in stores:
        other, was = next(one for one in stores if one is not wrong), wrong.mpp
        wrong.mpp = mpp
        with pytest.raises(StoreError, match="cannot be") as error:
            require_scale([other, wrong], StoreScale.of(other), "the model")
        assert error.value.where == wrong.path
        wrong.mpp = was


def test_stores_of_another_scale_than_a_model_was_trained_at_are_refused(save_store):
    store = save_store("a", PLACES)
    require_scale([store], None, "an older model")
    require_scale([store], StoreScale(mpp=0.49, tile_px=64), "the model")
    for scale in (StoreScale(mpp=1.0, tile_px=64), StoreScale(mpp=0.5, tile_px=32)):
        with pytest.raises(StoreError, match="but the model was trained on tiles of") as error:
            require_scale([store], scale, "the model")
        assert error.value.where == store.path
        assert error.value.fix == f"tile the slides with --mpp {scale.mpp:g} --tile-px {scale.tile_px}"


def test_features_without_pixels_are_not_to_be_tiled_again(save_store):
    store = save_store("a", PLACES)
    add_embeddings(store.path, "uni", np.ones((len(store), 4), np.float32), {})
    shutil.rmtree(store.path / "tiles")
    with pytest.raises(StoreError, match="but the model was trained on") as error:
        require_scale([store], StoreScale(mpp=1.0, tile_px=64), "the model")
    assert error.value.fix == REMAKE
