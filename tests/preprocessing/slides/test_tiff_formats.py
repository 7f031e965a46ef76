"""Law: TIFFs that tifffile writes are read as the picture they were made from, or refused."""

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tifffile

from preprocessing.errors import SlideError
from preprocessing.slides.openslide import OpenSlideBackend
from preprocessing.slides.slide import read_slide
from preprocessing.slides.tiff import TiffBackend

HALF_A_MICROMETRE = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
LOSSY = 6
"""Mean difference in gray levels that JPEG may make of texture."""


def rgba(image, alpha=255):
    return np.dstack([image, np.full(image.shape[:2], alpha, np.uint8)])


@pytest.fixture(scope="module")
def picture(image):
    """768 x 512 pixels, not a multiple of the tiles."""
    return image[200:700, 200:950]


@pytest.fixture
def save(tmp_path):
    """A function: write pictures as the levels of one TIFF, the smaller ones after the first or below it."""

    def write(*levels, name="slide.tif", bigtiff=False, ome=None, below=False, **options):
        settings = {"photometric": "rgb", "tile": (128, 128)} | HALF_A_MICROMETRE | options
        metadata = None if ome is None else {"axes": "YXS"} | ome
        with tifffile.TiffWriter(tmp_path / name, bigtiff=bigtiff, ome=ome is not None) as tiff:
            for i, level in enumerate(levels):
                subifds = len(levels) - 1 if below and i == 0 else None
                kind = {"metadata": metadata} if i == 0 else {"metadata": None, "subfiletype": 1}
                tiff.write(level, subifds=subifds, **kind, **settings)
        return tmp_path / name

    return write


def halves(picture, levels=3):
    out = [picture]
    for _ in range(levels - 1):
        out.append(cv2.resize(out[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return out


def difference(pixels, expected):
    assert pixels.shape == expected.shape
    return np.abs(pixels.astype(int) - expected).mean()


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"compression": "jpeg", "compressionargs": {"level": 95, "outcolorspace": "ycbcr"}}, LOSSY),
        ({"compression": "jpeg", "compressionargs": {"level": 95, "outcolorspace": "rgb"}}, LOSSY),
        ({"compression": "jpeg", "compressionargs": {"level": 95}, "subsampling": (2, 2)}, 3 * LOSSY),
        ({"compression": "jpeg", "compressionargs": {"level": 95}, "tile": None, "rowsperstrip": 16}, LOSSY),
        ({"compression": "jpeg2000"}, 0),
        ({"compression": 33005}, 0),
        ({"compression": "lzw", "predictor": True}, 0),
        ({"compression": "deflate", "tile": None}, 0),
        ({"compression": "webp", "compressionargs": {"lossless": True}}, 0),
        ({"compression": None, "tile": None}, 0),
        ({"compression": None, "bigtiff": True}, 0),
        ({"compression": "zstd", "bigtiff": True}, 0),
    ],
    ids=str,
)
def test_pyramids_of_every_compression_give_their_pixels_back(save, picture, options, most):
    levels = halves(picture)
    with read_slide(save(*levels, **options)) as slide:
        assert isinstance(slide._backend, TiffBackend)
        assert slide.level_sizes == [(level.shape[1], level.shape[0]) for level in levels]
        assert (slide.mpp_l0, slide.mpp_source) == (pytest.approx(0.5), "metadata")
        for number, level in enumerate(levels):
            assert difference(slide.read_region((0, 0), number, slide.level_sizes[number]), level) <= most
        x, y = 100, 60  # a region over the borders of tiles, of a level whose tiles are cut off at the edge
        assert difference(slide.read_region((4 * x, 4 * y), 2, (80, 60)), levels[2][y : y + 60, x : x + 80]) <= most


def test_jpeg_tiles_are_read_with_their_tables_apart_or_inside(save, picture, tmp_path):
    """libjpeg's tables in the tag JPEGTables, as scanners write them, or in every tile, as tifffile does."""
    inside = save(picture, compression="jpeg", compressionargs={"level": 95})
    with tifffile.TiffFile(inside) as tiff:
        page, data = tiff.pages[0], inside.read_bytes()
        places = zip(page.dataoffsets, page.databytecounts, strict=True)
        tiles = [data[offset : offset + length] for offset, length in places]
    tables, bare = split_tables(tiles[0]), [without_tables(tile) for tile in tiles]
    apart = tmp_path / "apart.tif"
    tifffile.imwrite(
        apart,
        iter(bare),
        shape=picture.shape,
        dtype=np.uint8,
        photometric="ycbcr",
        tile=(128, 128),
        compression="jpeg",
        jpegtables=tables,
        metadata=None,
        **HALF_A_MICROMETRE,
    )
    with read_slide(inside) as one, read_slide(apart) as other:
        whole = one.read_region((0, 0), 0, one.size_l0)
        np.testing.assert_array_equal(whole, other.read_region((0, 0), 0, other.size_l0))
    assert difference(whole, picture) < LOSSY


def segments(jpeg):
    at = 2
    while jpeg[at + 1] != 0xDA:
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        yield jpeg[at + 1], jpeg[at : at + length]
        at += length
    yield 0xDA, jpeg[at:]


def split_tables(jpeg):
    return b"\xff\xd8" + b"".join(part for kind, part in segments(jpeg) if kind in (0xDB, 0xC4)) + b"\xff\xd9"


def without_tables(jpeg):
    return b"\xff\xd8" + b"".join(part for kind, part in segments(jpeg) if kind not in (0xDB, 0xC4))


def test_planes_of_one_colour_each_are_put_together(save, picture):
    planes = [level.transpose(2, 0, 1) for level in halves(picture, 2)]
    for options in ({}, {"tile": None, "rowsperstrip": 50}):
        with read_slide(save(*planes, planarconfig="separate", compression="deflate", **options)) as slide:
            np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.size_l0), picture)
            assert len(slide.level_sizes) == 2


@pytest.mark.parametrize(
    ("extrasamples", "alpha", "expected"),
    [
        ("unassalpha", 255, "picture"),
        ("unassalpha", 0, "white"),
        ("assocalpha", 0, "white"),
        ("assocalpha", 255, "picture"),
        ("unspecified", 0, "picture"),
    ],
)
def test_opacity_is_laid_on_white_and_a_fourth_channel_that_is_none_is_left_out(
    save, picture, extrasamples, alpha, expected
):
    pixels = rgba(picture, alpha)
    if extrasamples == "assocalpha" and not alpha:
        pixels[:] = 0
    with read_slide(save(pixels, compression="deflate", extrasamples=extrasamples)) as slide:
        read = slide.read_region((0, 0), 0, slide.size_l0)
    np.testing.assert_array_equal(read, picture if expected == "picture" else np.full_like(picture, 255))


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "sentence"),
    [
        ((64, 64, 3), np.uint16, {}, "not 8-bit RGB but uint16 RGB"),
        ((64, 64, 3), np.float32, {}, "not 8-bit RGB but float32 RGB"),
        ((64, 64), np.uint8, {"photometric": "minisblack"}, "not 8-bit RGB but uint8 MINISBLACK"),
        ((64, 64, 4), np.uint8, {"photometric": "separated"}, "not 8-bit RGB but uint8 SEPARATED"),
        ((64, 64, 3), np.uint8, {"photometric": "ycbcr", "compression": "deflate"}, "not 8-bit RGB but uint8 YCBCR"),
        ((2, 64, 64, 3), np.uint8, {}, "not 8-bit RGB but uint8 RGB, axes .YXS"),
        ((64, 64, 3), np.uint8, {"compression": 33003}, "compression 33003 has no decoder"),
    ],
)
def test_other_pixels_are_refused_by_name(save, shape, dtype, options, sentence):
    with pytest.raises(SlideError, match=sentence) as caught:
        read_slide(save(np.zeros(shape, dtype), **options), mpp=0.5)
    assert "convert it" in caught.value.fix


@pytest.mark.parametrize("below", [True, False], ids=["subifds", "pages"])
@pytest.mark.parametrize(("size", "unit"), [(0.25, "µm"), (250, "nm"), (0.00025, "mm")])
def test_an_ome_tiff_gives_its_own_levels_and_resolution(save, picture, below, size, unit):
    physical = {f"PhysicalSize{side}": size for side in "XY"} | {f"PhysicalSize{side}Unit": unit for side in "XY"}
    levels = halves(picture)
    path = save(*levels, name="slide.ome.tif", ome=physical, below=below, compression="jpeg", resolution=(72, 72))
    with read_slide(path) as slide:
        assert (slide.vendor, slide.mpp_l0, slide.mpp_source) == ("ome-tiff", pytest.approx(0.25), "metadata")
        assert len(slide.level_sizes) == (3 if below else 1)
        number = len(slide.level_sizes) - 1
        pixels = slide.read_region((0, 0), number, slide.level_sizes[number])
    assert difference(pixels, levels[number]) < 2 * LOSSY


def test_an_ome_tiff_that_states_no_size_has_that_of_its_tags_or_none(save, picture):
    with read_slide(save(picture, name="tags.ome.tif", ome={})) as slide:
        assert slide.mpp_l0 == pytest.approx(0.5)
    with pytest.raises(SlideError, match="does not state its resolution"):
        read_slide(save(picture, name="silent.ome.tif", ome={}, resolution=None, resolutionunit=None))


@pytest.mark.parametrize(
    ("resolution", "unit", "sentence"),
    [
        ((72, 72), "INCH", r"352\.778 x 352\.778"),
        ((20_000, 10_000), "CENTIMETER", "0.5 x 1 .*not square"),
        ((300, 300), "NONE", "does not state its resolution"),
        ((0, 0), "INCH", "does not state its resolution"),
        (((4_000_000_000, 1), (4_000_000_000, 1)), "INCH", r"6\.35e-06"),
    ],
)
def test_a_resolution_that_cannot_be_is_refused_and_the_manifest_is_the_way_out(
    save, picture, resolution, unit, sentence
):
    path = save(picture, resolution=resolution, resolutionunit=unit)
    with pytest.raises(SlideError, match=sentence) as caught:
        read_slide(path)
    assert "manifest" in caught.value.fix
    with read_slide(path, mpp=0.5) as slide:
        assert slide.mpp_source == "manifest"


def test_a_pyramid_whose_pages_are_not_marked_as_reduced_has_its_levels(tmp_path, picture):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for step in (1, 2, 4):
            tiff.write(
                picture[::step, ::step], photometric="rgb", tile=(64, 64), compression="lzw", metadata=None,
                resolution=(20_000 / step,) * 2, resolutionunit="CENTIMETER",
            )  # fmt: skip
    with read_slide(tmp_path / "a.tif") as slide:
        assert len(slide.level_sizes) == 3
        assert slide.mpp_l0 == 0.5
        for level, step in enumerate((1, 2, 4)):
            pixels = slide.read_region((0, 0), level, slide.level_sizes[level])
            np.testing.assert_array_equal(pixels, picture[::step, ::step])


def test_a_label_before_the_slide_is_not_the_slide(tmp_path, picture):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(picture[:50, :70], photometric="rgb", metadata=None)
        tiff.write(picture, photometric="rgb", tile=(64, 64), metadata=None, resolution=(20_000, 20_000),
                   resolutionunit="CENTIMETER")  # fmt: skip
    with read_slide(tmp_path / "a.tif") as slide:
        assert slide.level_sizes == [picture.shape[1::-1]]
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.size_l0), picture)


def test_inches_and_centimetres_give_the_same(save, picture):
    for resolution, unit in ((50_800, "INCH"), (20_000, "CENTIMETER")):
        with read_slide(save(picture, resolution=(resolution, resolution), resolutionunit=unit)) as slide:
            assert slide.mpp_l0 == pytest.approx(0.5)


def test_tiles_that_were_left_out_are_white(tmp_path, picture):
    def tiles():
        for row in range(4):
            for column in range(6):
                block = picture[row * 128 : row * 128 + 128, column * 128 : column * 128 + 128]
                tile = np.zeros((128, 128, 3), np.uint8)
                tile[: block.shape[0], : block.shape[1]] = block
                yield None if (row, column) == (1, 2) else tile

    path = tmp_path / "sparse.tif"
    kind = {"photometric": "rgb", "tile": (128, 128), "compression": "deflate", "metadata": None}
    tifffile.imwrite(path, tiles(), shape=picture.shape, dtype=np.uint8, **kind)
    expected = picture.copy()
    expected[128:256, 256:384] = 255
    with read_slide(path, mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.size_l0), expected)


def test_a_file_that_was_cut_off_is_refused_when_it_is_opened(save, picture):
    path = save(picture, compression="deflate")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SlideError, match="beyond its end"):
        read_slide(path)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(("left", "sentence"), [(0, "not copied whole"), (1, "corrupted"), (40, "corrupted")])
def test_a_file_that_was_cut_off_behind_its_first_image_is_refused_whoever_states_its_resolution(
    tmp_path, picture, bigtiff, left, sentence
):
    path = tmp_path / "cut.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tiff:
        for image in (picture, picture[::2, ::2]):
            tiff.write(image, tile=(128, 128), photometric="rgb", metadata=None)
    with read_slide(path, mpp=0.5) as slide:
        assert slide.size_l0 == picture.shape[1::-1]
    with tifffile.TiffFile(path) as tiff:
        second = tiff.pages[1].offset
    os.truncate(path, second + left)
    with pytest.raises(SlideError, match=sentence) as error:
        read_slide(path, mpp=0.5)
    assert "copy" in error.value.fix


def test_beyond_the_picture_is_white(save, picture):
    with read_slide(save(picture, tile=None)) as slide:
        around = slide.read_region((-5, 480), 0, (800, 40))
        outside = slide.read_region((5000, 5000), 0, (10, 10))
    np.testing.assert_array_equal(around[:20, 5:755], picture[480:])
    assert around[:, :5].min() == around[20:].min() == around[:, 755:].min() == outside.min() == 255


@pytest.mark.parametrize("compression", ["deflate", "jpeg2000"])
def test_threads_that_read_at_once_get_what_one_gets(save, picture, compression, monkeypatch):
    monkeypatch.setattr("preprocessing.slides.tiff_level.CACHE_BYTES", 1 << 17)  # so small that tiles are decoded again
    places = [(x, y) for y in range(0, 400, 50) for x in range(0, 600, 50)] * 3
    with read_slide(save(picture, compression=compression)) as slide, ThreadPoolExecutor(8) as pool:
        regions = list(pool.map(lambda place: slide.read_region(place, 0, (100, 90)), places))
    for (x, y), region in zip(places, regions, strict=True):
        np.testing.assert_array_equal(region, picture[y : y + 90, x : x + 100])


def test_openslide_takes_sixteen_bits_for_eight_which_is_why_it_is_not_asked(save):
    path = save(np.full((64, 64, 3), 300, np.uint16), tile=(16, 16), compression="deflate")
    assert OpenSlideBackend(path).read((0, 0), 0, (64, 64)).max() == 1
