"""Tiles cut anew: every coefficient the slide's, whatever the sizes; what cannot be cut is left to others."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.jpeg.from_tiff import JpegTiff
from preprocessing.jpeg.markers import END
from preprocessing.jpeg.retile import RetiledLevel

APERIO = Path(__file__).parents[3] / ".." / "shared/data/slides/CMU-1-Small-Region.svs"


def open_level(path, image=None, tile=(240, 240), subsampling=(2, 2), quality=90, colours="YCBCR"):
    """Level 0 of a TIFF of JPEG tiles, which is written first where there is an image."""
    if image is not None:
        options = {
            "photometric": "rgb",
            "compressionargs": {"level": quality, "outcolorspace": colours},
            "metadata": None,
        }
        tifffile.imwrite(path, image, tile=tile[::-1], compression="jpeg", subsampling=subsampling, **options)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        size = (page.imagewidth, page.imagelength)
    return JpegTiff(path, [size]).levels[0]


def plain(jpeg):
    """Pixels of a JPEG, its chroma repeated, not interpolated: what they are does not depend on neighbouring tiles."""
    return simplejpeg.decode_jpeg(jpeg, "RGB", fastupsample=True)


def mosaic(level):
    """The whole level so decoded."""
    rows, columns = level.offsets.shape
    width, height = level.tile
    picture = np.empty((rows * height, columns * width, 3), np.uint8)
    for row, column in np.ndindex(rows, columns):
        (fetched,) = level.fetch(np.array([[row, column]]))
        picture[row * height :, column * width :][:height, :width] = plain(b"".join(fetched))
    return picture


def inside(level, side):
    """Rows and columns of the tiles of `side` pixels that lie within the level."""
    return np.argwhere(np.ones((level.size[1] // side, level.size[0] // side)))


def cut(level, side, retiled=None):
    """All new tiles within the level, by place."""
    retiled, rc = retiled or RetiledLevel.of(level, side), inside(level, side)
    return {tuple(place): tile for place, tile in zip(rc.tolist(), retiled.tiles(rc), strict=True)}


@settings(max_examples=25, deadline=None)
@given(
    subsampling=st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    tile=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    side=st.integers(2, 20),
    quality=st.sampled_from([30, 75, 90, 98]),
    colours=st.sampled_from(["YCBCR", "RGB"]),
)
def test_tiles_of_any_size_show_what_the_slide_shows(
    tmp_path_factory, image, subsampling, tile, side, quality, colours
):
    path = tmp_path_factory.getbasetemp() / "retiled.tif"
    tile, side = (16 * tile[0], 16 * tile[1]), 16 * side
    level = open_level(path, image[:700, :900], tile, subsampling, quality, colours)
    whole = mosaic(level)
    tiles = cut(level, side)
    assert len(tiles) == (700 // side) * (900 // side)
    for (row, column), jpeg in tiles.items():
        assert np.array_equal(plain(b"".join(jpeg)), whole[row * side :, column * side :][:side, :side])


def test_a_tile_cut_anew_takes_no_more_bytes_than_the_slide_has_for_it(tmp_path, image):
    level = open_level(tmp_path / "slide.tif", image[:960, :1200])
    tiles = cut(level, 80)  # nine of each
    header = len(level.head) + len(level.headers[0])
    scans = sum(sum(map(len, tile)) - header for tile in tiles.values())
    assert scans == pytest.approx((level.lengths - len(level.headers[0])).sum(), rel=0.01)


def test_only_the_tiles_of_the_slide_that_are_needed_are_read(tmp_path, image, monkeypatch):
    level, read = open_level(tmp_path / "slide.tif", image), []
    retiled = RetiledLevel.of(level, 256)
    fetch = type(level).fetch
    monkeypatch.setattr(type(level), "fetch", lambda self, rc: read.extend(map(tuple, rc.tolist())) or fetch(self, rc))
    retiled.tiles(np.array([[0, 0], [2, 1]]))
    assert sorted(read) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2)]


@pytest.mark.parametrize(
    ("tile", "side", "subsampling"),
    [((240, 240), 100, (2, 2)), ((240, 240), 248, (2, 2)), ((240, 240), 250, (1, 1))],
    ids=["100", "half a unit", "two pixels"],
)
def test_where_blocks_do_not_fit_nothing_is_cut(tmp_path, image, tile, side, subsampling):
    assert RetiledLevel.of(open_level(tmp_path / "slide.tif", image, tile, subsampling), side) is None


def test_units_of_eight_pixels_may_be_cut_at_eight(tmp_path, image):
    level = open_level(tmp_path / "slide.tif", image[:480, :480], subsampling=(1, 1))
    assert np.array_equal(plain(b"".join(cut(level, 88)[1, 4])), mosaic(level)[88:176, 352:440])


@pytest.fixture
def level(tmp_path, image):
    return open_level(tmp_path / "slide.tif", image)


@pytest.fixture
def changed(level, tmp_path):
    """The level with one tile, (1, 2), changed."""
    files = []

    def make(change):
        offsets, lengths = level.offsets.copy(), level.lengths.copy()
        whole = bytearray((tmp_path / "slide.tif").read_bytes())
        start = offsets[1, 2]
        tile = change(bytes(whole[start : start + lengths[1, 2]]))
        offsets[1, 2], lengths[1, 2] = len(whole), len(tile)
        files.append((tmp_path / "changed.tif").open("w+b"))
        files[-1].write(whole + tile)
        files[-1].flush()
        return type(level)(level.size, level.tile, level.head, offsets, lengths, files[-1].fileno())

    yield make
    for file in files:
        file.close()


TOUCHED = {(0, 1), (0, 2), (1, 1), (1, 2)}
"""Tiles of 256 that need the tile of 240 that was changed."""


@pytest.mark.parametrize(
    "change",
    [
        lambda tile: b"",
        lambda tile: tile[:-300],
        lambda tile: tile[:-300] + END,
        lambda tile: tile[:-302] + bytes(300) + END,
        lambda tile: tile[:-2] + bytes(40) + END,
        lambda tile: tile.replace(b"\x03\x01\x00\x02\x11", b"\x03\x01\x11\x02\x11"),
    ],
    ids=["left out", "cut off", "too few units", "zeros", "too many bytes", "other tables"],
)
def test_tiles_that_need_a_damaged_one_are_left_to_who_decodes(changed, level, change):
    tiles = cut(level, 256, replace(RetiledLevel.of(level, 256), level=changed(change)))
    assert {place for place, tile in tiles.items() if tile is None} == TOUCHED
    assert cut(level, 256)[0, 0] == tiles[0, 0]


def test_bytes_behind_the_end_of_a_tile_do_no_harm(changed, level):
    tiles, padded = cut(level, 256), cut(changed(lambda tile: tile + b"\x00"), 256)
    assert {place: b"".join(tile) for place, tile in tiles.items()} == {p: b"".join(t) for p, t in padded.items()}


def test_a_level_whose_tiles_have_different_headers_is_not_cut(changed):
    assert (
        RetiledLevel.of(changed(lambda tile: tile.replace(b"\x03\x01\x00\x02\x11", b"\x03\x01\x11\x02\x11")), 256)
        is None
    )


def test_a_level_with_tiles_too_long_to_be_jpegs_is_not_cut(level):
    level.lengths[2, 2] = 4 * 240 * 240 + 65537
    assert RetiledLevel.of(level, 256) is None


def test_threads_that_note_a_header_at_the_same_time_do_no_harm(level):
    level.fetch(np.array([[0, 0]]))
    level.headers.append(level.headers[0])
    assert RetiledLevel.of(level, 256) is not None


def test_of_no_tiles_there_are_none(level):
    assert RetiledLevel.of(level, 256).tiles(np.empty((0, 2), np.int32)) == []


FUZZ = """
import sys
import numpy as np
from dataclasses import replace
from pathlib import Path
from test_retile import cut, open_level
from preprocessing.jpeg.retile import RetiledLevel
level = open_level(Path(sys.argv[1]))
retiled, rng = RetiledLevel.of(level, 256), np.random.default_rng(int(sys.argv[2]))
good, made = np.frombuffer(Path(sys.argv[1]).read_bytes(), np.uint8), 0
with Path(sys.argv[1] + ".damaged").open("w+b") as file:
    for _ in range(200):
        data = good.copy()
        start, length = level.offsets[1, 2], level.lengths[1, 2]
        header = len(level.headers[0])
        for _ in range(rng.integers(1, 40)):
            data[start + header + rng.integers(length - header - 2)] = rng.integers(255)  # 255 begins a marker
        file.seek(0)
        file.write(data)
        file.flush()
        tiles = cut(level, 256, replace(retiled, level=replace(level, descriptor=file.fileno())))
        made += sum(tile is not None for tile in tiles.values())
print(made)
"""


def test_no_damage_reaches_beyond_the_arrays(tmp_path, image, level):
    """Numba checks every index in this process, which it does not otherwise."""
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "checked")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[3])])
    command = [sys.executable, "-c", FUZZ, tmp_path / "slide.tif", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    untouched = len(inside(level, 256)) - len(TOUCHED)
    assert 200 * untouched < int(done.stdout) < 200 * (untouched + len(TOUCHED))  # damage that is none to the codes


def test_a_real_slide_keeps_its_pixels():
    if not APERIO.exists():
        pytest.skip(f"{APERIO} is not here")
    level = open_level(APERIO)
    whole, tiles = mosaic(level), cut(level, 256)
    assert len(tiles) == 88
    for (row, column), jpeg in tiles.items():
        assert np.array_equal(plain(b"".join(jpeg)), whole[row * 256 :, column * 256 :][:256, :256])
