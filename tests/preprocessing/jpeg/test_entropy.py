import numpy as np
import pytest
import simplejpeg

from preprocessing.jpeg.entropy import COLOURS, SPARE, ScanIndex, join, walk
from preprocessing.jpeg.huffman import Scan, read_scan
from preprocessing.jpeg.markers import SCAN, segments

TILE = np.array([4, 4])
"""Rows and columns of units of a tile: 32 x 32 pixels without subsampling."""
END = b"\xff\xd9"
ALONE = np.array([[0]])


def split(jpeg: bytes) -> tuple[bytes, bytes]:
    """The header and the scan of a JPEG, the scan with the end marker."""
    at = next(end for kind, _, end in segments(jpeg) if kind == SCAN)
    return jpeg[:at], jpeg[at:]


def image(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.integers(0, 256, 3) + rng.normal(0, 60, (32, 32, 3)), 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(pixels, 95, colorsubsampling="444")


def walked(*scans: bytes) -> tuple[ScanIndex, np.ndarray]:
    source, lengths, n = np.frombuffer(b"".join(scans), np.uint8), np.array([len(scan) for scan in scans]), 16
    ends = np.cumsum(lengths)
    index = ScanIndex(
        words=np.empty(len(source) // 4 + len(scans) * (SPARE + 2), np.uint32),
        units=np.empty((len(scans), n + 1), np.int64),
        dc_places=np.empty((len(scans), n, COLOURS, 2), np.int64),
        dc_values=np.empty((len(scans), n, COLOURS, 2), np.int32),
    )
    return index, walk(source, ends - lengths, ends - len(END), scan_of(), index)


def scan_of() -> Scan:
    return read_scan(split(encoded(image(0)))[0])


def test_the_dc_coefficients_are_the_means_of_the_blocks():
    grey = np.zeros((32, 32, 3), np.uint8)
    grey[:8, :8], grey[:8, 8:16] = 255, 64  # units 0 and 1; all others are black
    jpeg = simplejpeg.encode_jpeg(grey, 100, colorsubsampling="444")  # quantised by 1: a DC is 8 times the mean - 128
    index, good = walked(split(jpeg)[1])
    assert good.tolist() == [True]
    assert index.dc_values[0, :, 0, 0].tolist() == [8 * (255 - 128), 8 * (64 - 128)] + [-1024] * 14
    assert (index.dc_values[0, :, 1:] == 0).all()
    np.testing.assert_array_equal(index.dc_values[..., 0], index.dc_values[..., 1])  # one block a unit


def test_units_follow_each_other_and_begin_with_their_dc_codes():
    index, _ = walked(split(encoded(image(1)))[1])
    assert index.units[0, 0] == 0
    assert (np.diff(index.units[0]) > 0).all()
    np.testing.assert_array_equal(index.dc_places[0, :, 0, 0], index.units[0, :-1])
    assert (index.dc_places[..., 1] > index.dc_places[..., 0]).all()
    assert (index.dc_places[0, :, 1:, 0] > index.dc_places[0, :, :-1, 1]).all()


def test_a_whole_tile_is_written_as_the_bytes_that_it_was():
    scans = [split(encoded(image(seed)))[1] for seed in range(8)]
    assert any(b"\xff\x00" in scan for scan in scans)  # zeros after 0xFF are taken out and put back
    for scan in scans:
        index, good = walked(scan)
        assert good.all()
        data, ends = join(np.array([[0, 0]]), TILE, TILE, ALONE, index, scan_of())
        assert bytes(data[: ends[1]]) + END == scan


@pytest.mark.parametrize("corner", [(0, 0), (0, 4), (0, 1), (0, 3)])
def test_a_tile_across_two_has_their_coefficients(corner):
    left, right = image(1), image(2)
    header, first = split(encoded(left))
    index, good = walked(first, split(encoded(right))[1])
    assert good.all()
    data, ends = join(np.array([corner]), TILE, TILE, np.array([[0, 1]]), index, scan_of())
    found = simplejpeg.decode_jpeg(header + bytes(data[: ends[1]]) + END)
    both = np.concatenate([simplejpeg.decode_jpeg(encoded(one)) for one in (left, right)], axis=1)
    np.testing.assert_array_equal(found, both[:, 8 * corner[1] : 8 * corner[1] + 32])


def test_a_tile_that_needs_an_absent_tile_has_no_bytes():
    index, _ = walked(split(encoded(image(1)))[1])
    corners = np.array([[0, 2], [0, 0]])
    data, ends = join(corners, TILE, TILE, np.array([[0, -1]]), index, scan_of())
    assert ends[1] == 0
    assert bytes(data[: ends[2]]) + END == split(encoded(image(1)))[1]


@pytest.mark.parametrize(
    "damage",
    [lambda scan: scan[: len(scan) // 2] + END, lambda scan: scan[:-2] + b"\x12\x34" + END, lambda scan: END],
    ids=["cut short", "too long", "empty"],
)
def test_a_damaged_scan_is_found_and_the_next_is_walked(damage):
    scan = split(encoded(image(1)))[1]
    index, good = walked(damage(scan), scan)
    assert good.tolist() == [False, True]
    data, ends = join(np.array([[0, 4]]), TILE, TILE, np.array([[0, 1]]), index, scan_of())
    assert bytes(data[: ends[1]]) + END == scan


def test_codes_that_no_table_has_are_refused():
    _, good = walked(b"\xff\x00" * 400 + END)
    assert good.tolist() == [False]
