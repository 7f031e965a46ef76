import json
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from preprocessing.errors import SlideError
from preprocessing.tissue.masks import PNG_START, export_mask, find_mask, read_mask

SIZE = (256, 192)


@pytest.fixture
def png(tmp_path):
    def write(pixels, name="slide.png"):
        (tmp_path / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        return tmp_path / name

    return write


@pytest.mark.parametrize("suffix", [".png", ".geojson"])
def test_the_mask_of_a_store_is_read_back_the_same(make_store, tmp_path, suffix):
    store = make_store()
    export_mask(store, tmp_path / f"mask{suffix}")
    mask = read_mask(tmp_path / f"mask{suffix}", SIZE, store.overview_mask.shape)
    np.testing.assert_array_equal(mask, store.overview_mask)


def test_a_mask_is_exported_by_its_ending(make_store, tmp_path):
    with pytest.raises(ValueError, match=r"neither with \.geojson nor with \.png"):
        export_mask(make_store(), tmp_path / "mask.tif")


def test_exported_polygons_have_level_0_pixels_and_names(make_store, tmp_path):
    export_mask(make_store(), tmp_path / "mask.geojson")
    (feature,) = json.loads((tmp_path / "mask.geojson").read_text())["features"]
    assert feature["properties"]["classification"]["name"] == "Tissue"
    corners = np.array([corner for rings in feature["geometry"]["coordinates"] for ring in rings for corner in ring])
    assert corners.min() >= 0
    assert 150 < corners[:, 1].max() <= 192


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", ["gray", "rgb", "rgba"])
def test_in_a_png_of_other_values_everything_above_0_is_tissue(png, dtype, colour):
    pixels = np.zeros((96, 128), dtype)
    pixels[:48], pixels[48:72] = np.iinfo(dtype).max, 5
    if colour != "gray":
        pixels = np.stack([pixels, np.zeros_like(pixels), np.zeros_like(pixels)], axis=2)
    if colour == "rgba":
        opaque = np.full((96, 128, 1), np.iinfo(dtype).max, dtype)
        opaque[:24] = 0
        pixels = np.concatenate([pixels, opaque], axis=2)
    mask = read_mask(png(pixels), SIZE, (24, 32))
    top = 6 if colour == "rgba" else 0
    assert (mask[top:18] == 1).all()
    assert not mask[18:].any()
    assert not mask[:top].any()


def test_values_0_to_3_are_the_classes_at_any_size(png):
    pixels = np.repeat(np.arange(4, dtype=np.uint8), 15)[None].repeat(45, axis=0)
    mask = read_mask(png(pixels), SIZE, (24, 32))
    np.testing.assert_array_equal(mask, np.repeat(np.arange(4), 8)[None].repeat(24, axis=0))


def test_a_mask_of_another_shape_is_refused(png):
    with pytest.raises(SlideError, match=r"64 x 64 pixels, the slide 256 x 192: another aspect ratio"):
        read_mask(png(np.ones((64, 64), np.uint8)), SIZE, (24, 32))
    assert read_mask(png(np.ones((48, 65), np.uint8)), SIZE, (24, 32)).all(), "sides are rounded"


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "bomb.png").write_bytes(PNG_START[:8] + chunk)
    with pytest.raises(SlideError, match="40000 x 30000 pixels, too many"):
        read_mask(tmp_path / "bomb.png", (40_000, 30_000), (24, 32))


def test_damaged_empty_and_foreign_files_are_refused(png, tmp_path):
    whole = png(np.ones((48, 64), np.uint8)).read_bytes()
    for data, sentence in (
        (b"", "not a PNG"),
        (b"GIF89a", "not a PNG"),
        (whole[:20], "not a PNG"),
        (whole[:40], "cannot be decoded"),
    ):
        (tmp_path / "bad.png").write_bytes(data)
        with pytest.raises(SlideError, match=sentence):
            read_mask(tmp_path / "bad.png", SIZE, (24, 32))
    with pytest.raises(SlideError, match="no tissue"):
        read_mask(png(np.zeros((48, 64), np.uint8)), SIZE, (24, 32))


@pytest.mark.parametrize("length", [1, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("kind", [b"IDAT", b"IEND", b"tEXt"])
def test_a_chunk_that_claims_more_than_the_file_has_takes_no_memory(png, kind, length):
    """OpenCV 4.13 takes as much, and fills it: 4 GB for a PNG of 200 bytes."""
    path = png(np.ones((60, 80), np.uint8))
    data = path.read_bytes()
    at = data.find(kind) if kind in data else data.index(b"IDAT")
    claimed = max(length, len(data))
    path.write_bytes(data[: at - 4] + claimed.to_bytes(4, "big") + kind + data[at + 4 :])
    with pytest.raises(SlideError, match="it ends within a chunk"):
        read_mask(path, (8000, 6000), (60, 80))


@pytest.mark.parametrize("more", [b"", b"appended by a tool"])
def test_what_follows_the_end_of_a_png_is_nothing(png, more):
    path = png(np.ones((60, 80), np.uint8))
    path.write_bytes(path.read_bytes() + more)
    assert read_mask(path, (8000, 6000), (60, 80)).all()


def test_a_slide_without_its_mask_fails_by_name(tmp_path, png):
    path = png(np.ones((48, 64), np.uint8), "A.png")
    assert find_mask(tmp_path, "A") == path
    (tmp_path / "A.geojson").write_text("[]")
    assert find_mask(tmp_path, "A").suffix == ".geojson"
    with pytest.raises(SlideError, match=r"neither B\.geojson nor B\.png") as error:
        find_mask(tmp_path, "B")
    assert error.value.where == tmp_path


@pytest.mark.parametrize(("width", "height"), [(0, 0), (2**31 - 1, 1), (1, 0), (2**32 - 1, 2**32 - 1)])
def test_a_png_of_impossible_size_is_refused(tmp_path, width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "odd.png").write_bytes(PNG_START[:8] + chunk)
    with pytest.raises(SlideError):
        read_mask(tmp_path / "odd.png", (max(width, 1), max(height, 1)), (24, 32))


def test_a_palette_is_read_as_its_colours(tmp_path):
    image = Image.fromarray(np.repeat([[0], [1]], 24, axis=0).repeat(64, axis=1).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 200, 0])
    image.save(tmp_path / "palette.png")
    mask = read_mask(tmp_path / "palette.png", SIZE, (24, 32))
    assert (mask[:12].max(), mask[12:].min()) == (0, 1)
