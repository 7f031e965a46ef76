import json
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg
import zarr
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.jpeg.codec import Jpeg, decode_into, empty_pixels


def test_metadata_is_what_imagecodecs_zarr_writes():
    document = {"name": "imagecodecs_jpeg", "configuration": {"level": 90, "subsampling": "444"}}
    assert Jpeg(level=90, subsampling="444").to_dict() == document
    assert Jpeg.from_dict(document).to_dict() == document


def test_keys_that_we_never_write_are_kept():
    configuration = {
        "level": 80,
        "colorspace_data": "RGB",
        "colorspace_jpeg": "YCBCR",
        "optimize": True,
        "tables": "AA==",
    }
    assert Jpeg.from_dict({"name": "imagecodecs_jpeg", "configuration": configuration}).to_dict() == {
        "name": "imagecodecs_jpeg",
        "configuration": configuration,
    }


def test_a_key_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="quality"):
        Jpeg.from_dict({"name": "imagecodecs_jpeg", "configuration": {"quality": 90}})


@pytest.mark.parametrize(("subsampling", "error"), [("444", 3), ("422", 6), ("420", 8)])
def test_what_is_decoded_is_near_what_was_encoded(tiles, subsampling, error):
    jpeg = Jpeg(level=95, subsampling=subsampling)
    decoded = jpeg.decode_image(jpeg.encode_image(tiles[0]))
    assert np.abs(decoded.astype(int) - tiles[0]).mean() < error


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_the_fast_decoder_gives_the_same_pixels(tiles, subsampling):
    jpeg = Jpeg(level=85, subsampling=subsampling)
    data, out = jpeg.encode_image(tiles[1]), np.empty_like(tiles[1])
    decode_into(data, out)
    np.testing.assert_array_equal(out, jpeg.decode_image(data))


def test_the_fast_decoder_refuses_damage(tiles):
    data = Jpeg(level=85).encode_image(tiles[0])
    for damaged in (data[: len(data) // 2], data[:100], b"no JPEG", b""):
        with pytest.raises(ValueError, match=r".+"):
            decode_into(damaged, np.empty((32, 32, 3), np.uint8))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 64), (32, 33), (32, 31), (16, 16)])
def test_the_fast_decoder_refuses_other_sizes(tiles, height, width):
    data = Jpeg(level=85).encode_image(tiles[0])
    with pytest.raises(ValueError, match=f"32 x 32 pixels where {width} x {height}"):
        decode_into(data, np.empty((height, width, 3), np.uint8))


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize(("channels", "colours"), [(3, "RGB"), (1, "GRAY")])
def test_the_fast_decoder_decodes_at_a_scale_whatever_the_place_in_memory(image, scale, channels, colours):
    data = Jpeg(level=90).encode_image(np.ascontiguousarray(image[:128, :128]))
    side = 128 // scale
    expected = simplejpeg.decode_jpeg(data, colours, min_height=side, min_width=side)
    memory = np.empty(side * side * channels + 32, np.uint8)
    for start in (0, 8, 16, 31):
        out = memory[start : start + side * side * channels].reshape(side, side, channels)
        decode_into(data, out, scale)
        np.testing.assert_array_equal(out, expected)


@given(shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 40), st.just(3)))
def test_memory_to_decode_into_begins_where_decoders_write_through_the_cache(shape):
    out = empty_pixels(*shape)
    assert out.shape == shape
    assert out.flags.c_contiguous
    assert out.flags.writeable
    assert out.size == 0 or out.ctypes.data % 32 == 8


def test_an_image_of_more_pixels_than_a_tile_is_never_decoded(tiles):
    data = bytearray(Jpeg(level=85).encode_image(tiles[0]))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\x7f\xff\x7f\xff"  # height and width: three gigabytes of pixels
    out = np.full_like(tiles[0], 7)
    with pytest.raises(ValueError, match="32767 x 32767 pixels where 32 x 32"):
        decode_into(bytes(data), out)
    assert (out == 7).all()


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (32, 32, 3), (1, 1, 3), (32, 32)])
def test_zarr_reads_back_chunks_of_any_image_shape(tmp_path, tiles, shape):
    data = np.resize(tiles[0], shape)
    array = zarr.create_array(tmp_path / "a.zarr", data=data, chunks=shape, serializer=Jpeg(level=98), compressors=None)
    assert array[:].shape == shape
    assert np.abs(zarr.open_array(tmp_path / "a.zarr")[:].astype(int) - data).mean() < 4


def test_a_fresh_process_that_imports_the_package_can_read(tmp_path, tiles):
    zarr.create_array(
        tmp_path / "a.zarr", data=tiles, chunks=(1, 32, 32, 3), serializer=Jpeg(level=90), compressors=None
    )
    code = f"import preprocessing.jpeg.codec, zarr; print(zarr.open_array({str(tmp_path / 'a.zarr')!r})[:].shape)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out.replace("(", "[").replace(")", "]")) == [5, 32, 32, 3]
