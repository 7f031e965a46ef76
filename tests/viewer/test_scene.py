import base64
import io
import os

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from longvit.formats.explanation_json import ExplanationFolder
from longvit.viewer.find import ViewerSources, find
from longvit.viewer.scene import Scene, packed, tag_of


@pytest.fixture
def scene(planted) -> Scene:
    """The explained slide, five tiles of 64 pixels on a slide of 320 x 256, in pictures of at most 200 pixels."""
    return Scene.open("data/7/", "P00-0", find(planted.config), 200)


def unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_numbers_are_packed_as_little_endian_bytes():
    assert base64.b64decode(packed(np.array([[1, 2], [-1, 256]]), "<i4")) == (
        b"\1\0\0\0\2\0\0\0\xff\xff\xff\xff\0\1\0\0"
    )
    np.testing.assert_array_equal(unpacked(packed(np.array([0.5, -2]), "<f4"), "<f4"), [0.5, -2])


def test_the_document_holds_the_slide_its_tiles_and_its_scores(scene, planted):
    store, document = planted.store, scene.document()
    assert (document["slide_id"], document["size_l0"], document["mpp_l0"]) == ("P00-0", store.size_l0, store.mpp_l0)
    assert document["pyramid"]["size"] == (200, 160)
    assert document["pyramid"]["reduced"]
    assert document["tiles"]["count"] == len(store)
    np.testing.assert_array_equal(unpacked(document["tiles"]["rc"], "<i4").reshape(-1, 2), store.rc)
    np.testing.assert_array_equal(unpacked(document["tiles"]["tissue"], "<f4"), store.tissue)
    assert [layer["key"] for layer in document["explanation"]["layers"]] == [
        *("received", "received_layer_01", "contribution")
    ]
    assert set(document["explanation"]) == {"model", "target", "prediction", "side_l0", "layers"}
    assert document["patient"]["patient_id"] == "P00"


def test_every_named_file_is_found_and_no_other(scene):
    names = list(scene.names())
    assert names[:6] == ["slide.js", "mask.png", "tokens.js", "layers/0.js", "layers/1.js", "layers/2.js"]
    assert all(scene.find(name) is not None for name in names)
    for name in ("layers/3.js", "layers/-1.js", "tiles/8/1_0.jpg", "tiles/99/0_0.jpg", "slide.json", "", "../slide.js"):
        assert scene.find(name) is None


def test_scores_belong_to_the_layer_of_their_number(scene, planted):
    text = scene.find("layers/1.js").make().decode()
    assert text.startswith('LongViT.receive("data/7/layers/1.js", "')
    scores = unpacked(text.split('"')[3], "<f4")
    folder = ExplanationFolder.read(planted.explanations / "P00-0")
    np.testing.assert_array_equal(scores, folder.scores("received_layer_01"))
    assert 0 < scores.mean() < 1


def test_pictures_have_the_size_that_the_pyramid_states(scene, planted):
    assert simplejpeg.decode_jpeg(scene.find("tiles/8/0_0.jpg").make()).shape == (160, 200, 3)
    mask = Image.open(io.BytesIO(scene.find("mask.png").make()))
    assert mask.size == planted.store.overview_mask.shape[::-1]


def test_a_slide_without_explanation_has_no_scores(planted):
    alone = Scene.open("data/0/", "P00-0", ViewerSources("S", {"P00-0": planted.store.path}), None)
    assert alone.document()["explanation"] is alone.document()["patient"] is None
    assert alone.find("tokens.js") is alone.find("layers/0.js") is None
    assert "tokens.js" not in set(alone.names())


def test_a_tag_changes_with_the_store_and_with_what_is_shown(save_store):
    path = save_store("S", [[0, 0]]).path
    tag = tag_of(path, "a")
    assert tag == tag_of(path, "a") != tag_of(path, "b")
    os.utime(path / "zarr.json", (1, 1))
    assert tag_of(path, "a") != tag


def test_tiles_of_no_lattice_are_drawn_at_the_nearest_cell_and_the_page_says_so(save_store):
    path = save_store("S", [[0, 0], [0, 1]]).path
    warnings = []
    for lattice in ("true", "false"):
        document = path / "zarr.json"
        document.write_text(document.read_text().replace('"lattice": true', f'"lattice": {lattice}'))
        warnings.append(Scene.open("data/0/", "S", ViewerSources("S", {"S": path}), None).document()["warnings"])
    assert warnings[1] == [*warnings[0], "the tiles are not cells of one grid; each is drawn at the nearest cell"]
