import itertools
from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocessing.jpeg import markers
from preprocessing.jpeg.markers import find_markers, is_whole, scan_start

SIZE = (128, 128)


@pytest.fixture(scope="module")
def jpeg(image):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image[:128, :128]), quality=95)


def check(data, at=0):
    """What is wrong with a JPEG that begins there and goes on to the end of the data; raises where it has no header."""
    return "" if is_whole(data, scan_start(data, at, SIZE), len(data), find_markers(data)) else "damaged"


def test_a_jpeg_is_whole_wherever_it_begins(jpeg):
    assert check(jpeg) == ""
    assert check(jpeg + jpeg, len(jpeg)) == ""
    assert scan_start(b"\xff" + jpeg, 1, SIZE) == scan_start(jpeg, 0, SIZE) + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:-700] + bytes(700),
        lambda data: data[:-700] + b"\xff\xc4" * 350,
    ],
    ids=["half", "last byte", "zeros", "markers"],
)
def test_what_decoders_would_take_for_gray_or_noise_is_not_whole(jpeg, damage):
    assert check(damage(jpeg)) == "damaged"


def test_the_end_of_the_next_image_does_not_end_this_one(jpeg):
    cut = jpeg[:-2]
    markers = find_markers(cut + jpeg)
    assert not is_whole(cut + jpeg, scan_start(cut, 0, SIZE), len(cut), markers)
    markers = find_markers(cut + b"\xff\xd9")
    assert not is_whole(cut + b"\xff\xd9", scan_start(cut, 0, SIZE), len(cut) + 1, markers)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a JPEG"),
        (b"II*\0" * 10, "not a JPEG"),
        (b"\xff\xd8" + bytes(300), "no JPEG header"),
        (b"\xff\xd8\xff\xc0\x00\x11\x08", "no JPEG header"),
        (simplejpeg.encode_jpeg(np.zeros((64, 64, 3), np.uint8)), "64 x 64"),
        (simplejpeg.encode_jpeg(np.zeros((128, 128, 1), np.uint8), colorspace="GRAY"), "1 colours"),
    ],
    ids=["nothing", "a TIFF", "zeros", "cut in its frame", "other size", "gray"],
)
def test_what_is_no_such_jpeg_is_refused(data, complaint):
    with pytest.raises(ValueError, match=complaint):
        scan_start(data, 0, SIZE)


def test_a_jpeg_of_several_scans_is_refused(jpeg):
    """libjpeg reads scans as long as there are any: a few bytes each, a second of work in every 100 kB."""
    progressive = BytesIO()
    Image.new("RGB", SIZE, "pink").save(progressive, "JPEG", progressive=True)
    with pytest.raises(ValueError, match="no JPEG header"):
        scan_start(progressive.getvalue(), 0, SIZE)
    scan = jpeg.index(b"\xff\xda\x00\x0c\x03")
    alone = jpeg[:scan] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + jpeg[scan + 14 :]
    with pytest.raises(ValueError, match="several scans"):
        scan_start(alone, 0, SIZE)


@given(data=st.lists(st.sampled_from([0x00, 0x01, 0xCF, 0xD0, 0xD7, 0xD8, 0xD9, 0xFE, 0xFF]), max_size=60).map(bytes))
def test_few_bytes_and_many_have_their_markers_found_alike(data):
    few = find_markers(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markers, "FEW_BYTES", 0)
        assert find_markers(data) == few
    assert few == [
        i for i, (a, b) in enumerate(itertools.pairwise(data))
        if a == 0xFF and b not in (0x00, 0xFF, *range(0xD0, 0xD8))
    ]  # fmt: skip
