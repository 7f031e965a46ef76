import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocessing.errors import SlideError
from preprocessing.jpeg.codec import Jpeg
from preprocessing.jpeg.level import JpegLevel
from preprocessing.slides.slide import read_slide
from preprocessing.tiling.grid import select_tiles
from preprocessing.tiling.pixels import TilePixels, in_order

JPEG = Jpeg(level=95, subsampling="444")


def write_pyramid(path, image, tile=256):
    """A TIFF of RGB JPEG tiles, 0.5 um per pixel, levels 1 and 1/2."""
    with tifffile.TiffWriter(path) as tiff:
        for step, kind in ((1, 0), (2, 1)):
            tiff.write(
                np.ascontiguousarray(image[::step, ::step]),
                tile=(tile, tile),
                photometric="rgb",
                subfiletype=kind,
                compression="jpeg",
                compressionargs={"level": 95},
                resolution=(20_000 / step, 20_000 / step),
                resolutionunit="CENTIMETER",
            )
    return path


@pytest.fixture(scope="session")
def pyramid(tmp_path_factory, image):
    return write_pyramid(tmp_path_factory.mktemp("pyramid") / "slide.tif", image)


def tiles_of(slide, side_l0, tile_st, *, threads=1, shard_tiles=1024, min_tissue=0.0, jpeg=JPEG, **options):
    """Every tile of the grid as (grid, pixels object, JPEGs in the order of the grid)."""
    grid = select_tiles(np.ones((32, 40), np.uint8), slide.size_l0, side_l0, min_tissue)
    pixels = TilePixels(slide, grid, tile_st, jpeg, **options)
    with ThreadPoolExecutor(threads) as pool:
        made = list(pixels.jpegs(pool, threads, shard_tiles))
    assert [i // shard_tiles for i, _ in made] == sorted(i // shard_tiles for i, _ in made)
    made = {i: tile if isinstance(tile, SlideError) else b"".join(tile) for i, tile in made}
    assert sorted(made) == list(range(len(grid.rc)))
    return grid, pixels, [made[i] for i in range(len(grid.rc))]


def own(level, row, column):
    """A level's own JPEG of a tile."""
    return b"".join(level.fetch(np.array([[row, column]]))[0])


def test_where_grids_align_the_bytes_of_the_slide_are_kept(pyramid):
    with read_slide(pyramid) as slide:
        grid, pixels, tiles = tiles_of(slide, 256.0, 256)
        assert pixels.kept
        for (row, column), tile in zip(grid.rc.tolist(), tiles, strict=True):
            assert tile == own(slide.jpeg_levels[0], row, column)


def test_the_bytes_of_a_coarser_level_are_kept_too(pyramid):
    with read_slide(pyramid) as slide:
        _, pixels, tiles = tiles_of(slide, 512.0, 256, threads=2)
        assert pixels.kept
        assert tiles[0] == own(slide.jpeg_levels[1], 0, 0)


@pytest.mark.parametrize(
    ("side_l0", "tile_st", "options"),
    [(256.0, 256, {"keep": False}), (100.0, 100, {}), (300.0, 256, {}), (512.0, 128, {})],
    ids=["not wanted", "no whole blocks", "other resolution", "decoded at half"],
)
def test_otherwise_tiles_are_encoded(pyramid, side_l0, tile_st, options):
    with read_slide(pyramid) as slide:
        assert not TilePixels(
            slide, select_tiles(np.ones((4, 5), np.uint8), slide.size_l0, side_l0, 0.1), tile_st, JPEG, **options
        ).kept


def test_a_tile_that_reaches_beyond_the_slide_is_white_there_and_not_kept(tmp_path, image):
    path = write_pyramid(tmp_path / "odd.tif", image[:700, :900])
    with read_slide(path) as slide:
        grid, pixels, tiles = tiles_of(slide, 256.0, 256)
        assert pixels.kept
        last = JPEG.decode_image(tiles[grid.rc.tolist().index([2, 3])])
        assert (last[:, 900 - 768 + 8 :] > 250).all()
        assert (last[700 - 512 + 8 :] > 250).all()
        assert np.abs(last[:180, :120].astype(int) - image[512:692, 768:888]).mean() < 5


def test_a_column_of_which_a_coarser_level_has_nothing_is_white(tmp_path, image):
    """1283 pixels are five tiles of 64 at a quarter, and three pixels more: the level of them has five tiles."""
    path = tmp_path / "odd.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step, kind in ((1, 0), (4, 1)):
            tiff.write(
                np.ascontiguousarray(np.pad(image, ((0, 0), (0, 3), (0, 0)))[::step, : 1283 // step * step : step]),
                tile=(64, 64), photometric="rgb", subfiletype=kind, compression="jpeg",
                resolution=(20_000 / step, 20_000 / step), resolutionunit="CENTIMETER",
            )  # fmt: skip
    with read_slide(path) as slide:
        grid, pixels, tiles = tiles_of(slide, 64 * slide.downsamples[1], 64)
        assert pixels.kept
        assert grid.shape == (4, 6)
        assert slide.jpeg_levels[1].offsets.shape == (4, 5)
    assert min(JPEG.decode_image(tiles[grid.rc.tolist().index([row, 5])]).min() for row in range(4)) > 250


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(70, 900), st.integers(70, 900)),
    ratio=st.sampled_from([1, 2, 3, 4]),
    tile=st.sampled_from([16, 48, 64, 128]),
    roundings=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_kept_and_encoded_tiles_show_the_same(tmp_path_factory, image, size, ratio, tile, roundings):
    """Of any size, whose coarser level some programs round up and some down."""
    path, level = tmp_path_factory.getbasetemp() / "any.tif", image[: size[1], : size[0]]
    small = [max(1, (length + up * (ratio - 1)) // ratio) for length, up in zip(size, roundings, strict=True)]
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(
            (level, cv2.resize(level, small, interpolation=cv2.INTER_AREA))[: min(ratio, 2)]
        ):
            settings = {"compression": "jpeg", "compressionargs": {"level": 95}, "subfiletype": min(number, 1)}
            settings |= {"resolution": (20_000 / ratio**number,) * 2, "resolutionunit": "CENTIMETER"}
            tiff.write(np.ascontiguousarray(pixels), tile=(tile, tile), photometric="rgb", **settings)
    with read_slide(path) as slide:
        _, pixels, kept = tiles_of(slide, tile * slide.downsamples[-1], tile)
        _, _, encoded = tiles_of(slide, tile * slide.downsamples[-1], tile, keep=False)
    assert pixels.kept
    for one, other in zip(kept, encoded, strict=True):
        assert np.abs(JPEG.decode_image(one).astype(int) - JPEG.decode_image(other)).mean() < 4


@pytest.mark.parametrize("most", [1, 40_000, 1 << 22])
def test_units_of_kept_tiles_hold_so_many_bytes(pyramid, monkeypatch, most):
    monkeypatch.setattr("preprocessing.tiling.pixels.KEPT_BYTES", most)
    with read_slide(pyramid) as slide:
        grid, pixels, _ = tiles_of(slide, 256.0, 256, shard_tiles=7)
        lengths = slide.jpeg_levels[0].lengths[tuple(grid.rc.T)]
        units = pixels._units(7)
    assert np.concatenate(units).tolist() == list(range(len(grid.rc)))
    assert all(len(set(unit // 7)) == 1 for unit in units)
    assert max(lengths[unit].sum() - lengths[unit].max() for unit in units) <= most


@settings(max_examples=12, deadline=None)
@given(side_l0=st.floats(100, 700), tile_st=st.sampled_from([64, 96, 256]), shard_tiles=st.integers(1, 9))
def test_any_grid_shows_the_places_it_names(pyramid, side_l0, tile_st, shard_tiles):
    with read_slide(pyramid) as slide:
        grid, _, tiles = tiles_of(slide, side_l0, tile_st, threads=2, shard_tiles=shard_tiles)
        for i in range(0, len(tiles), max(1, len(tiles) // 6)):
            expected = slide.read_scaled(tuple(grid.xy_l0[i].tolist()), (side_l0, side_l0), (tile_st, tile_st))
            blurred = [tile.reshape(tile_st // 8, 8, tile_st // 8, 8, 3).mean(axis=(1, 3)) for tile in
                       (JPEG.decode_image(tiles[i]).astype(float), expected.astype(float))]  # fmt: skip
            assert np.abs(blurred[0] - blurred[1]).mean() < 6


def test_openslide_serves_what_is_no_jpeg_tiff(tmp_path, image):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, image, tile=(256, 256), photometric="rgb", compression="lzw", resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    with read_slide(path) as slide:
        assert not slide.jpeg_levels
        grid, pixels, tiles = tiles_of(slide, 256.0, 256, threads=2)
        assert not pixels.kept
        tile = JPEG.decode_image(tiles[grid.rc.tolist().index([1, 2])])
        assert np.abs(tile.astype(int) - image[256:512, 512:768]).mean() < 4


def test_a_damaged_tile_is_named_and_the_tiles_around_it_are_made(tmp_path, image):
    path = write_pyramid(tmp_path / "damaged.tif", image)
    with read_slide(path) as slide:
        level = slide.jpeg_levels[0]
        offset, length = int(level.offsets[1, 2]), int(level.lengths[1, 2])
    with path.open("r+b") as file:
        file.seek(offset + length // 2)
        file.write(bytes(length // 2))
    for keep in (True, False):
        with read_slide(path) as slide:
            grid, _, tiles = tiles_of(slide, 256.0, 256, keep=keep)
        (bad,) = [i for i, tile in enumerate(tiles) if isinstance(tile, SlideError)]
        assert grid.rc[bad].tolist() == [1, 2]
        assert "level 0 at x=512, y=256" in tiles[bad].what


def test_a_damaged_tile_under_a_block_takes_only_the_tiles_that_it_touches(tmp_path, image):
    path = write_pyramid(tmp_path / "damaged.tif", image)
    with read_slide(path) as slide:
        slide.jpeg_levels[0].lengths[1, 2] -= 40
        grid, pixels, tiles = tiles_of(slide, 300.0, 256)
        assert pixels.block == 16
        bad = {tuple(grid.rc[i].tolist()) for i, tile in enumerate(tiles) if isinstance(tile, SlideError)}
    assert bad == {(0, 1), (0, 2), (1, 1), (1, 2)}  # 512 to 768 x 256 to 512


def test_no_tile_of_the_slide_is_decoded_twice_under_one_block(tmp_path, image, monkeypatch):
    path, decode, decoded = write_pyramid(tmp_path / "aperio.tif", image, tile=240), JpegLevel.decode, []

    def counted(level, row, column, *how):
        decoded.append((row, column))
        return decode(level, row, column, *how)

    monkeypatch.setattr(JpegLevel, "decode", counted)
    with read_slide(path) as slide:
        decoded.clear()
        _, pixels, _ = tiles_of(slide, 256.0, 256, keep=False)
        assert pixels.block == 15  # 16 of the slide's own
        assert sorted(decoded) == list(np.ndindex(slide.jpeg_levels[0].offsets.shape))


@pytest.mark.parametrize(("side", "block"), [(256, 15), (80, 51), (480, 8), (208, 15)])
def test_tiles_of_another_size_are_cut_anew_from_the_slides_own(tmp_path, image, side, block):
    path = write_pyramid(tmp_path / "aperio.tif", image, tile=240)
    with read_slide(path) as slide:
        grid, pixels, tiles = tiles_of(slide, float(side), side, threads=2, shard_tiles=7)
        assert pixels.kept
        assert pixels.block == block
        for (row, column), tile in zip(grid.rc.tolist(), tiles, strict=True):
            x, y = column * side, row * side
            seen = simplejpeg.decode_jpeg(tile, "GRAY")[: 1024 - y, : 1280 - x].astype(int)
            inside = x + side <= 1280 and y + side <= 1024
            shown = slide.jpeg_levels[0].read((x, y), (side, side), channels=1)[: 1024 - y, : 1280 - x]
            assert np.abs(seen - shown).mean() <= (0 if inside else 3)


def chroma_of(jpegs):
    return {simplejpeg.decode_jpeg_header(jpeg)[3] for jpeg in jpegs}


@pytest.mark.parametrize("own", ["444", "422", "420"])
def test_what_is_encoded_again_has_as_much_chroma_as_the_slide(tmp_path, image, own):
    path, factors = tmp_path / "slide.tif", {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[own]
    tifffile.imwrite(
        path, image, tile=(256, 256), photometric="rgb", compression="jpeg", subsampling=factors,
        compressionargs={"level": 80, "outcolorspace": "YCBCR"},
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    with read_slide(path) as slide:
        level = slide.jpeg_levels[0]
        assert level.subsampling() == own
        settings = {"keep": False, "jpeg": Jpeg(level=90)}
        grid, pixels, tiles = tiles_of(slide, 256.0, 256, **settings)
        assert {pixels.jpeg.subsampling} == chroma_of(tiles) == {own}
        assert chroma_of(tiles_of(slide, 512.0, 256, **settings)[2]) == {"444"}
        assert chroma_of(tiles_of(slide, 256.0, 256, keep=False)[2]) == {"444"}
        again = np.array([JPEG.decode_image(tile) for tile in tiles]).astype(float)
        shown = np.array([level.decode(*place) for place in grid.rc.tolist()])
        full = tiles_of(slide, 256.0, 256, keep=False, jpeg=Jpeg(level=90, subsampling="444"))[2]
        more = np.array([JPEG.decode_image(tile) for tile in full])
    if own == "444":
        assert np.array_equal(again, more)
    else:  # fewer bytes than with all the chroma that interpolation made up, and nearer to what the slide shows
        assert np.square(again - shown).mean() < np.square(more - shown.astype(float)).mean()


def test_a_kept_tile_of_few_bytes_that_cannot_be_decoded_is_named(pyramid, monkeypatch):
    with read_slide(pyramid) as slide:
        level = slide.jpeg_levels[0]
        (head, body) = level.fetch(np.array([[1, 1]]))[0]
        short = head, memoryview(bytes(body[:700]) + b"\xff\xd9")
        monkeypatch.setattr(JpegLevel, "fetch", lambda self, rc: [short] * len(rc))
        _, _, tiles = tiles_of(slide, 256.0, 256)
    assert {type(tile) for tile in tiles} == {SlideError}
    assert "cannot decode level 0 at x=0, y=0" in str(tiles[0])


def test_sampling_that_has_no_name_is_kept_all_the_same(pyramid, monkeypatch):
    def refuse(data):
        raise ValueError("unknown subsampling")

    with read_slide(pyramid) as slide:
        monkeypatch.setattr("preprocessing.jpeg.level.simplejpeg.decode_jpeg_header", refuse)
        assert slide.jpeg_levels[0].subsampling() == "444"


def test_a_tile_that_cannot_be_cut_is_decoded_by_itself(tmp_path, image):
    path = write_pyramid(tmp_path / "aperio.tif", image, tile=240)
    with read_slide(path) as slide:
        slide.jpeg_levels[0].lengths[1, 2] = 0  # the scanner left it out: white
        slide.jpeg_levels[0].lengths[3, 3] -= 40  # cut off
        grid, _, tiles = tiles_of(slide, 256.0, 256)
        made = dict(zip(map(tuple, grid.rc.tolist()), tiles, strict=True))
    assert {place for place, tile in made.items() if isinstance(tile, SlideError)} == {(2, 2), (2, 3), (3, 2), (3, 3)}
    white = JPEG.decode_image(made[1, 2])[:200, :200]  # x 512 to 712 of 480 to 720, y 256 to 456 of 240 to 480
    assert white.min() > 250


def test_a_tile_of_nothing_where_the_overview_has_tissue_is_damaged(pyramid):
    with read_slide(pyramid) as slide:
        slide.jpeg_levels[0].lengths[2, 2] = 0
        grid, _, tiles = tiles_of(slide, 256.0, 256)
    error = tiles[grid.rc.tolist().index([2, 2])]
    assert isinstance(error, SlideError)
    assert "pure black or white" in error.what


def test_the_squeezed_slide_is_what_pillow_makes_of_the_whole(tmp_path, image):
    path = tmp_path / "plain.tif"
    tifffile.imwrite(
        path, image[:700, :900], tile=(256, 256), photometric="rgb", resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    canvas, tile_st = 512, 128
    expected = np.asarray(Image.fromarray(image[:700, :900]).resize((canvas, canvas), Image.Resampling.BICUBIC))
    with read_slide(path) as slide:
        side_l0 = (900 * tile_st / canvas, 700 * tile_st / canvas)
        grid, pixels, tiles = tiles_of(slide, side_l0, tile_st, squeeze=True)
        assert grid.shape == (4, 4)
        assert not pixels.kept
        for (row, column), tile in zip(grid.rc.tolist(), tiles, strict=True):
            there = expected[row * tile_st : (row + 1) * tile_st, column * tile_st : (column + 1) * tile_st]
            once_encoded = JPEG.decode_image(JPEG.encode_image(np.ascontiguousarray(there)))
            assert np.abs(JPEG.decode_image(tile).astype(int) - once_encoded).max() <= 4


def test_results_come_in_order_and_few_wait():
    running, most = set(), [0]
    lock = threading.Lock()

    def work(i):
        with lock:
            running.add(i)
            most[0] = max(most[0], len(running))
        return i

    with ThreadPoolExecutor(2) as pool:
        seen = []
        for i in in_order(pool, work, range(50), 4):
            seen.append(i)
            with lock:
                running.discard(i)
    assert seen == list(range(50))
    assert most[0] <= 5
