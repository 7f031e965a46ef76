"""DICOM in the forms of other converters, made here: what is read has exactly the pixels that were encoded."""

import cv2
import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)

from preprocessing import TileConfig, open_store, tile_slides
from preprocessing.errors import SlideError
from preprocessing.slides.slide import read_slide

SIDE, SIZE = 128, (400, 300)
TILES = 4 * 3
IN_PARTS = {"ConcatenationUID": "1.2.9", "InConcatenationTotalNumber": 2}


def rle(tile):
    facts = {"rows": SIDE, "columns": SIDE, "samples_per_pixel": 3, "bits_allocated": 8, "bits_stored": 8}
    facts |= {"pixel_representation": 0, "number_of_frames": 1, "planar_configuration": 0}
    return RLELosslessEncoder.encode(tile.tobytes(), photometric_interpretation="RGB", **facts)


def j2k(tile, mct=True):
    return imagecodecs.jpeg2k_encode(tile, level=0, reversible=True, mct=mct, codecformat="j2k")


def htj2k(tile):
    return imagecodecs.htj2k_encode(tile, reversible=True)


ENCODERS = {
    "jpeg-2000": (JPEG2000Lossless, "YBR_RCT", j2k),
    "jpeg-2000-rgb": (JPEG2000Lossless, "RGB", lambda tile: j2k(tile, mct=False)),
    "htj2k": (HTJ2KLossless, "YBR_RCT", htj2k),
    "htj2k-rpcl": (HTJ2KLosslessRPCL, "RGB", htj2k),
    "jpeg-ls": (JPEGLSLossless, "RGB", imagecodecs.jpegls_encode),
    "rle": (RLELossless, "RGB", rle),
    "plain": (ExplicitVRLittleEndian, "RGB", lambda tile: tile.tobytes()),
}
OURS = ["htj2k", "htj2k-rpcl", "jpeg-ls", "rle"]


def picture(width=SIZE[0], height=SIZE[1]):
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def tiles_of(image):
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % SIDE), (0, -width % SIDE), (0, 0)))
    corners = [(y, x) for y in range(0, len(padded), SIDE) for x in range(0, padded.shape[1], SIDE)]
    return [np.ascontiguousarray(padded[y : y + SIDE, x : x + SIDE]) for y, x in corners]


def at(left, top):
    """Item of a frame with its position, counted from 1."""
    place, item = Dataset(), Dataset()
    place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix = left + 1, top + 1
    item.PlanePositionSlideSequence = [place]
    return item


def write(path, form="jpeg-ls", image=None, numbers=range(TILES), sparse=False, mpp=0.5, **said):
    """Write a file with the tiles of these numbers; `said` replaces elements of its header."""
    image = picture() if image is None else image
    path.parent.mkdir(parents=True, exist_ok=True)
    syntax, colours, encode = ENCODERS[form]
    tiles, columns = tiles_of(image), -(-image.shape[1] // SIDE)
    frames = [encode(tiles[number]) for number in numbers]
    measures, shared, light = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, light.ObjectiveLensPower = [mpp / 1000, mpp / 1000], 20
    shared.PixelMeasuresSequence = [measures]
    facts = {
        "SOPClassUID": VLWholeSlideMicroscopyImageStorage, "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": "1.2.3.4", "ImageType": ["DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "DimensionOrganizationType": "TILED_SPARSE" if sparse else "TILED_FULL", "SamplesPerPixel": 3,
        "PhotometricInterpretation": colours, "PlanarConfiguration": 0, "Rows": SIDE, "Columns": SIDE,
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "NumberOfFrames": len(frames),
        "TotalPixelMatrixColumns": image.shape[1], "TotalPixelMatrixRows": image.shape[0],
        "SharedFunctionalGroupsSequence": [shared], "OpticalPathSequence": [light],
    }  # fmt: skip
    if sparse:
        places = [(number % columns * SIDE, number // columns * SIDE) for number in numbers]
        facts["PerFrameFunctionalGroupsSequence"] = [at(*place) for place in places]
    facts["PixelData"] = b"".join(frames) if syntax == ExplicitVRLittleEndian else encapsulate(frames)
    file = FileDataset(path, {}, preamble=bytes(128))
    file.file_meta.TransferSyntaxUID = said.pop("syntax", syntax)
    for name, value in (facts | said).items():
        if value is not None:
            setattr(file, name, value)
    file["PixelData"].VR = "OB"
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.save_as(path, enforce_file_format=True)
    return path


def pixels(path, level=0):
    with read_slide(path) as slide:
        assert slide.vendor == "dicom"
        return slide.read_region((0, 0), level, slide.level_sizes[level])


@pytest.mark.parametrize("form", ENCODERS)
def test_lossless_frames_have_the_pixels_that_were_encoded(tmp_path, form):
    path = write(tmp_path / "a.dcm", form)
    np.testing.assert_array_equal(pixels(path), picture())
    with read_slide(path) as slide:
        assert (slide.mpp_l0, slide.mpp_source, slide._backend.objective_power) == (0.5, "metadata", 20)
        region = slide.read_region((-10, 100), 0, (150, 250))
    np.testing.assert_array_equal(region[:200, 10:], picture()[100:, :140])
    assert (region[:, :10] == 255).all()
    assert (region[200:] == 255).all()


@pytest.mark.parametrize("form", ENCODERS)
def test_frames_in_any_order_and_not_there_are_at_their_positions_or_white(tmp_path, form):
    path = write(tmp_path / "a.dcm", form, numbers=[*range(11, 5, -1), 1, 0, 2, 3, 4], sparse=True)
    expected = picture()
    expected[SIDE : 2 * SIDE, SIDE : 2 * SIDE] = 255  # number 5
    np.testing.assert_array_equal(pixels(path), expected)


@pytest.mark.parametrize("form", ["jpeg-2000", "jpeg-ls", "rle", "plain"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_concatenation_is_one_level_whichever_part_is_given(tmp_path, form, sparse):
    for name, number, numbers in (("b", 1, range(7)), ("a", 2, range(7, TILES))):
        part = {"InConcatenationNumber": number, "ConcatenationFrameOffsetNumber": numbers[0]}
        part |= {"SOPInstanceUIDOfConcatenationSource": "1.2.8"}
        write(tmp_path / f"{name}.dcm", form, numbers=numbers, sparse=sparse, **IN_PARTS, **part)
    for given in (tmp_path, tmp_path / "a.dcm", tmp_path / "b.dcm"):
        np.testing.assert_array_equal(pixels(given), picture())


@pytest.mark.parametrize("form", ["jpeg-ls", "plain"])
@pytest.mark.parametrize("given", ["", "label.dcm", "m.dcm", "z.dcm"])
def test_a_series_is_a_slide_of_its_levels_whichever_file_is_given(tmp_path, form, given):
    small = picture(200, 150)
    write(tmp_path / "z.dcm", form)
    write(tmp_path / "a.dcm", form, small, range(4), mpp=1.0)
    for name, kind in (("label", "LABEL"), ("m", "OVERVIEW"), ("t", "THUMBNAIL")):
        image = picture(SIDE, SIDE)
        write(tmp_path / f"{name}.dcm", form, image, range(1), ImageType=["DERIVED", "PRIMARY", kind, "NONE"])
    with read_slide(tmp_path / given) as slide:
        assert slide.level_sizes == [SIZE, (200, 150)]
        assert len(slide.files) == 5
    np.testing.assert_array_equal(pixels(tmp_path / given, 0), picture())
    np.testing.assert_array_equal(pixels(tmp_path / given, 1), small)


@pytest.mark.parametrize("form", ["jpeg-ls", "plain"])
def test_one_level_alone_is_a_slide_of_its_own_resolution(tmp_path, form):
    path = write(tmp_path / "low.dcm", form, picture(200, 150), range(4), mpp=2.0)
    with read_slide(path) as slide:
        assert (slide.size_l0, slide.mpp_l0) == ((200, 150), 2.0)


def test_spacing_is_between_rows_and_then_between_columns(tmp_path):
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.0005, 0.000505]
    shared.PixelMeasuresSequence = [measures]
    with read_slide(write(tmp_path / "a.dcm", SharedFunctionalGroupsSequence=[shared])) as slide:
        assert slide._backend.stated_mpp == pytest.approx((0.505, 0.5))


def test_near_lossless_frames_are_within_their_error(tmp_path, monkeypatch):
    near = (JPEGLSNearLossless, "RGB", lambda tile: imagecodecs.jpegls_encode(tile, level=2))
    monkeypatch.setitem(ENCODERS, "near", near)
    assert np.abs(pixels(write(tmp_path / "a.dcm", "near")).astype(int) - picture()).max() == 2


def test_frames_in_ycbcr_are_converted(tmp_path):
    """Aperio's JPEG 2000 in YCbCr, kept by converters."""
    image = cv2.GaussianBlur(picture(), (0, 0), 8)  # no colour outside of RGB
    ycbcr = np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]])
    for form in ("jpeg-2000-rgb", "jpeg-ls"):
        path = write(tmp_path / form / "a.dcm", form, ycbcr, PhotometricInterpretation="YBR_FULL")
        assert np.abs(pixels(path).astype(int) - image).max() <= 2


def write_parts(folder, *parts):
    for number, numbers in parts:
        part = {"InConcatenationNumber": number, "ConcatenationFrameOffsetNumber": numbers[0]}
        write(folder / f"{number}.dcm", numbers=numbers, **IN_PARTS, **part)


def test_a_concatenation_without_one_of_its_parts_names_the_parts(tmp_path):
    write_parts(tmp_path, (2, range(7, TILES)))
    with pytest.raises(SlideError, match="the concatenation has 2 parts, and the folder contains only part 2 of it"):
        read_slide(tmp_path)


def test_parts_that_overlap_are_refused(tmp_path):
    write_parts(tmp_path, (1, range(7)), (2, range(6, TILES)))
    with pytest.raises(SlideError, match="several frames have the position of one tile"):
        read_slide(tmp_path)


def test_two_files_of_one_level_are_refused(tmp_path):
    write(tmp_path / "a.dcm")
    write(tmp_path / "b.dcm")
    with pytest.raises(SlideError, match="2 files of one size are not parts of one concatenation"):
        read_slide(tmp_path)


@pytest.mark.parametrize(
    ("form", "said", "sentence"),
    [
        ("jpeg-ls", {"syntax": JPEGLosslessSV1}, "JPEG Lossless, .* are left to OpenSlide"),
        ("jpeg-ls", {"PhotometricInterpretation": "MONOCHROME2"}, "PhotometricInterpretation is MONOCHROME2, which"),
        ("jpeg-ls", {"PhotometricInterpretation": None}, "PhotometricInterpretation is None"),
        ("htj2k", {"PhotometricInterpretation": "YBR_FULL"}, "the colours are not known"),
        ("jpeg-ls", {"BitsAllocated": 16}, "3 colours of 16 bits in 1 focal planes, not 3 of 8 in 1"),
        ("jpeg-ls", {"TotalPixelMatrixFocalPlanes": 2}, "in 2 focal planes"),
        ("jpeg-ls", {"Rows": 0}, "frames of 128 x 0 pixels have an impossible size"),
        ("jpeg-ls", {"Columns": 65535, "Rows": 65535}, "65535 x 65535 pixels have an impossible size"),
        ("jpeg-ls", {"TotalPixelMatrixColumns": 0}, "have an impossible size"),
        ("jpeg-ls", {"numbers": range(11)}, "a level of 12 tiles has 11 frames: a file is missing or was cut off"),
        ("jpeg-ls", {"NumberOfFrames": 11}, "11 frames are stored in 12 fragments"),
        ("jpeg-ls", {"DimensionOrganizationType": None}, "12 frames have 0 positions"),
        ("jpeg-ls", {"ImageType": ["DERIVED", "PRIMARY", "LABEL", "NONE"]}, "only labels, overviews or thumbnails"),
        ("plain", {"ImageType": ["DERIVED", "PRIMARY", "LABEL", "NONE"]}, "only labels, overviews or thumbnails"),
        ("plain", {"PlanarConfiguration": 1}, "OpenSlide: .*PlanarConfiguration"),
        ("jpeg-ls", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "file of CT Image Storage, not a whole-slide"),
        ("jpeg-ls", {"ConcatenationFrameOffsetNumber": 1}, "a frame is outside of the level"),
        ("jpeg-ls", {"TotalPixelMatrixColumns": 2**31, "TotalPixelMatrixRows": 2**31}, "of .* tiles has 12 frames"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, form, said, sentence):
    with pytest.raises(SlideError, match=sentence) as caught:
        read_slide(write(tmp_path / "a.dcm", form, **said))
    assert "OpenSlide: " in caught.value.what
    assert "put all files of its series into one folder" in caught.value.fix


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ((5, 0), "not on a lattice"),
        ((0, 0), "the position of one tile"),
        ((SIDE * 9, 0), "outside"),
        ((-SIDE, 0), "outside"),
        ((0, SIDE * 9), "outside"),
    ],
)
def test_frames_at_impossible_positions_are_refused(tmp_path, place, sentence):
    items = [at(*place) if number == 1 else at(number % 4 * SIDE, number // 4 * SIDE) for number in range(TILES)]
    path = write(tmp_path / "a.dcm", sparse=True, PerFrameFunctionalGroupsSequence=items)
    with pytest.raises(SlideError, match=sentence):
        read_slide(path)


def damaged_at(path, tile, frame, place=0.5):
    """Overwrite a part of the frame of a tile in a file."""
    data = bytearray(path.read_bytes())
    begin = data.find(ENCODERS[frame][2](tile))
    begin += int(len(ENCODERS[frame][2](tile)) * place)
    data[begin : begin + 40] = b"\xff\x90" * 20
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", OURS)
def test_a_damaged_frame_is_named_and_others_are_read(tmp_path, form):
    path = damaged_at(write(tmp_path / "a.dcm", form), tiles_of(picture())[6], form, place=0.02)
    with read_slide(path) as slide:
        with pytest.raises(SlideError, match="cannot decode level 0 at x=256, y=128"):
            slide.read_region((256, 128), 0, (20, 20))
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (SIDE, SIDE)), picture()[:SIDE, :SIDE])


@pytest.mark.parametrize("form", [*OURS, "jpeg-2000-rgb"])
def test_a_frame_of_another_size_than_the_header_s_is_refused_before_it_takes_memory(tmp_path, form, monkeypatch):
    syntax, colours, encode = ENCODERS[form]
    wide = np.tile(picture(SIDE, SIDE), (1, 2, 1))
    other = (lambda tile: rle(tile)[:64] + bytes(2000)) if form == "rle" else (lambda tile: encode(wide))
    monkeypatch.setitem(ENCODERS, form, (syntax, "YBR_FULL" if "2000" in form else colours, other))
    with read_slide(write(tmp_path / "a.dcm", form)) as slide, pytest.raises(SlideError, match="cannot decode level 0"):
        slide.read_region((0, 0), 0, (20, 20))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, share):
    path = write(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(SlideError, match="no library can read this"):
        read_slide(path)


def test_a_damaged_header_is_refused_in_a_short_sentence(tmp_path):
    path = write(tmp_path / "a.dcm", BitsAllocated=[16] * 20_000)
    with pytest.raises(SlideError, match="it has 3 colours of") as caught:
        read_slide(path)
    assert len(caught.value.what) < 800


def test_tiles_of_lossless_frames_are_in_the_store(tmp_path, image):
    tiles = -(-image.shape[1] // SIDE) * -(-image.shape[0] // SIDE)
    write(tmp_path / "slides" / "case" / "a.dcm", "htj2k", image, range(tiles))
    report = tile_slides(TileConfig(slides=tmp_path / "slides", out=tmp_path / "out", workers=1))
    assert [(row.slide_id, row.status, row.reason) for row in report.rows] == [("case", "done", "")]
    store = open_store(tmp_path / "out" / "case.zarr")
    assert (store.attributes["vendor"], store.attributes["mpp"], len(store)) == ("dicom", 0.5, 6)
    (x, y), tile = store.xy_l0[3].tolist(), store.read_tiles([3])[0]
    assert np.abs(tile.astype(int) - image[y : y + 256, x : x + 256]).mean() < 5


@pytest.mark.parametrize(("form", "sparse"), [("jpeg-2000-rgb", False), ("htj2k", False), ("plain", True)])
def test_colours_that_no_header_contradicts_are_refused_by_the_colour_of_glass(tmp_path, image, form, sparse):
    ycbcr = np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]])
    write(tmp_path / "a.dcm", form, ycbcr, range(80), sparse=sparse, PhotometricInterpretation="RGB")
    report = tile_slides(TileConfig(slides=tmp_path / "a.dcm", out=tmp_path / "out", workers=1))
    assert [row.status for row in report.rows] == ["failed"]
    assert "the colours are false: glass is not neutral, as where YCbCr is shown as RGB" in report.rows[0].reason
    assert not list((tmp_path / "out").glob("*.zarr"))


def test_baseline_jpeg_in_frames_at_positions_is_refused_if_the_header_contradicts_it(tmp_path, monkeypatch):
    jpeg = (JPEGBaseline8Bit, "YBR_FULL_422", lambda tile: imagecodecs.jpeg8_encode(tile, 95))
    monkeypatch.setitem(ENCODERS, "jpeg", jpeg)
    assert np.abs(pixels(write(tmp_path / "a.dcm", "jpeg", sparse=True)).astype(int) - picture()).mean() < 6
    with pytest.raises(SlideError, match="PhotometricInterpretation of the DICOM header contradicts the JPEG"):
        read_slide(write(tmp_path / "a.dcm", "jpeg", sparse=True, PhotometricInterpretation="RGB"))
