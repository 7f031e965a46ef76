"""The DICOM slides are made here, as scanners and converters write them: a file a level, a JPEG a tile."""

import os
import struct

import cv2
import numpy as np
import pytest
import simplejpeg
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

from preprocessing import TileConfig, open_store, tile_slides
from preprocessing.errors import SlideError
from preprocessing.jpeg.from_dicom import JpegDicom
from preprocessing.slides.slide import read_slide

SIDE = 240
SERIES = "1.2.3.4"
PHOTOMETRIC = {"YCbCr": "YBR_FULL_422", "RGB": "RGB"}


def frames_of(image, side, colours="YCbCr"):
    """JPEGs of the tiles of an image, row by row; what lies beyond its edge is black."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % side), (0, -width % side), (0, 0)))
    tiles = [
        padded[y : y + side, x : x + side] for y in range(0, len(padded), side) for x in range(0, padded.shape[1], side)
    ]
    return [jpeg(tile, colours) for tile in tiles]


def jpeg(tile, colours):
    """Without JFIF, as scanners write them; RGB is stored as it is, which nothing in the JPEG says."""
    if colours == "YCbCr":
        return without_jfif(simplejpeg.encode_jpeg(np.ascontiguousarray(tile), 90, "RGB", "420"))
    planes = [np.ascontiguousarray(tile[..., channel]) for channel in range(3)]
    return without_jfif(simplejpeg.encode_jpeg_yuv_planes(*planes, 90))


def without_jfif(data):
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


def write_level(path, image, frames, side, mpp=0.5, **said):
    """A file with one level; `said` replaces what it says of itself, or leaves it out where None."""
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    level = FileDataset(path, {}, preamble=bytes(128))
    facts = {
        "SOPClassUID": VLWholeSlideMicroscopyImageStorage,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": SERIES,
        "ImageType": ["DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "DimensionOrganizationType": "TILED_FULL",
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0,
        "NumberOfFrames": len(frames),
        "Rows": side,
        "Columns": side,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "TotalPixelMatrixColumns": image.shape[1],
        "TotalPixelMatrixRows": image.shape[0],
        "SharedFunctionalGroupsSequence": [shared],
        "PixelData": encapsulate(frames, has_bot=False),
    }
    for name, value in (facts | said).items():
        if value is not None:
            setattr(level, name, value)
    level.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    level.file_meta.MediaStorageSOPClassUID = level.SOPClassUID
    level.file_meta.MediaStorageSOPInstanceUID = level.SOPInstanceUID
    level.save_as(path, enforce_file_format=True)
    return path


def write_dicom(folder, image, side=SIDE, colours="YCbCr", **said):
    """A folder with a level of the image and one of a quarter its size; returns the file of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    small = cv2.resize(image, (image.shape[1] // 4, image.shape[0] // 4), interpolation=cv2.INTER_AREA)
    said = {"PhotometricInterpretation": PHOTOMETRIC[colours]} | said
    for name, level, mpp in (("level-0.dcm", image, 0.5), ("level-1.dcm", small, 2.0)):
        write_level(folder / name, level, frames_of(level, side, colours), side, mpp, **said)
    return folder / "level-0.dcm"


@pytest.fixture
def write(tmp_path, image):
    """A function: a slide of one level, whose file says what it is told to; returns the file."""

    def make(frames=None, **said):
        frames = frames_of(image, SIDE) if frames is None else frames
        return write_level(tmp_path / "slide.dcm", image, frames, SIDE, **said)

    return make


def levels(*files, size=(1280, 1024)):
    jpeg = JpegDicom(files, [size])
    jpeg.close()
    return jpeg.levels


@pytest.mark.parametrize("colours", ["YCbCr", "RGB"])
def test_frames_read_as_openslide_reads_them(tmp_path, image, colours):
    with read_slide(write_dicom(tmp_path, image, SIDE, colours)) as slide:
        assert (slide.vendor, slide.mpp_l0, list(slide.jpeg_levels)) == ("dicom", 0.5, [0, 1])
        for level, (width, height) in enumerate(slide.level_sizes):
            size = (width + 50, height + 50)
            region = slide.read_region((0, 0), level, size)
            np.testing.assert_array_equal(region, slide._backend.read((0, 0), level, size))
        assert np.abs(slide.read_region((0, 0), 0, slide.size_l0).astype(int) - image).mean() < 4


@pytest.mark.parametrize("colours", ["YCbCr", "RGB"])
@pytest.mark.parametrize(("side", "tile_px"), [(256, 256), (SIDE, 256)], ids=["kept", "re-tiled"])
def test_a_store_has_the_pixels_of_the_frames(tmp_path, image, colours, side, tile_px):
    path = write_dicom(tmp_path / "slide", image, side, colours)
    report = tile_slides(TileConfig(slides=path, out=tmp_path / "out", tile_px=tile_px, workers=1))
    assert [row.status for row in report.rows] == ["done"]
    store = open_store(tmp_path / "out" / "level-0.zarr")
    assert store.attributes["passthrough"] is True
    assert store.attributes["source"]["more"] == ["level-1.dcm"]
    with read_slide(path) as slide:
        for (x, y), tile in zip(store.xy_l0.tolist(), store.read_tiles(range(len(store))), strict=True):
            decoded = slide._backend.read((x, y), 0, (tile_px, tile_px)).astype(int)
            seams = 2 if side != tile_px else 0  # chroma is interpolated across borders that are no longer there
            assert np.abs(tile - decoded).mean() <= seams


def with_table(frames):
    return {"PixelData": encapsulate(frames)}


def with_long_table(frames):
    data, offsets, lengths = encapsulate_extended(frames)
    return {"PixelData": data, "ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}


def with_facts_on_every_frame(frames):
    fact = Dataset()
    fact.FrameAcquisitionNumber = 1
    return {"PerFrameFunctionalGroupsSequence": [fact] * 1000}


@pytest.mark.parametrize("how", [with_table, with_long_table, with_facts_on_every_frame])
def test_frames_are_found_behind_tables_and_facts(write, image, how):
    frames = frames_of(image, SIDE)
    (level,) = levels(write(frames, **how(frames))).values()
    assert (level.size, level.tile, level.lengths.shape) == ((1280, 1024), (SIDE, SIDE), (5, 6))
    assert level.lengths.ravel().tolist() == [len(frame) + len(frame) % 2 for frame in frames]


@pytest.mark.parametrize(
    "said",
    [
        {"DimensionOrganizationType": "TILED_SPARSE"},
        {"DimensionOrganizationType": None},
        {"ImageType": ["DERIVED", "PRIMARY", "THUMBNAIL", "RESAMPLED"]},
        {"ConcatenationUID": "1.2.3"},
        {"TotalPixelMatrixFocalPlanes": 2},
        {"NumberOfOpticalPaths": 3},
        {"PhotometricInterpretation": "YBR_ICT"},
        {"NumberOfFrames": 29},
        {"TotalPixelMatrixRows": 1300},
        {"Rows": 0},
        {"PhotometricInterpretation": None},
    ],
    ids=lambda said: "-".join(f"{key}={value}" for key, value in said.items()),
)
def test_what_is_not_one_picture_tile_by_tile_is_left_to_openslide(write, said):
    rows = said.get("TotalPixelMatrixRows", 1024)
    assert levels(write(**said), size=(1280, rows)) == {}


def test_frames_in_several_fragments_are_left_to_openslide(write, image):
    assert levels(write(PixelData=encapsulate(frames_of(image, SIDE), fragments_per_frame=2))) == {}


def test_two_files_of_one_size_are_left_to_openslide(write, image, tmp_path):
    other = write_level(tmp_path / "other.dcm", image, frames_of(image, SIDE), SIDE)
    assert list(levels(write())) == [0]
    assert levels(write(), other) == {}


def test_a_jpeg_that_contradicts_its_file_on_its_colours_is_left_to_openslide(write, image):
    tile = np.ascontiguousarray(image[:SIDE, :SIDE])
    jfif = simplejpeg.encode_jpeg(tile, 90, "RGB", "444")  # whose JFIF header means YCbCr
    frames = [jfif, *frames_of(image, SIDE)[1:]]
    assert levels(write(frames, PhotometricInterpretation="RGB")) == {}
    assert list(levels(write(frames, PhotometricInterpretation="YBR_FULL_422"))) == [0]
    adobe = b"\xff\xee" + struct.pack(">H", 14) + b"Adobe\x00\x64\x00\x00\x00\x00"
    own = without_jfif(jfif)
    for colours, transform, agrees in (("RGB", 0, 1), ("RGB", 1, 0), ("YBR_FULL_422", 1, 1), ("YBR_FULL_422", 0, 0)):
        frames[0] = own[:2] + adobe + bytes([transform]) + own[2:]
        assert len(levels(write(frames, PhotometricInterpretation=colours))) == agrees


def test_a_jpeg_whose_frame_contradicts_its_file_on_its_colours_is_left_to_openslide(write, image):
    halved = frames_of(image, SIDE, "YCbCr")  # 4:2:0, which only YCbCr is
    assert levels(write(halved, PhotometricInterpretation="RGB")) == {}
    assert list(levels(write(halved, PhotometricInterpretation="YBR_FULL_422"))) == [0]
    named = [with_names(data, b"RGB") for data in frames_of(image, SIDE, "RGB")]
    assert levels(write(named, PhotometricInterpretation="YBR_FULL")) == {}
    assert list(levels(write(named, PhotometricInterpretation="RGB"))) == [0]


def with_names(data, names):
    """A JPEG whose three components have other names, in its frame and in its scan."""
    data = bytearray(data)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for n, name in enumerate(names):
        data[frame + 10 + 3 * n] = data[scan + 5 + 2 * n] = name
    return bytes(data)


@pytest.mark.parametrize("cut", [1000, 20_000, -20])
def test_a_file_cut_short_has_no_such_level_and_keeps_nothing_open(write, cut):
    path = write()
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    path.write_bytes(path.read_bytes()[:cut])
    assert levels(path) == {}
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_a_damaged_frame_is_named(tmp_path, image):
    path = write_dicom(tmp_path / "slide", image, SIDE)
    with read_slide(path) as slide:
        level = slide.jpeg_levels[0]
        offset, length = int(level.offsets[2, 2]), int(level.lengths[2, 2])
    with path.open("r+b") as file:
        file.seek(offset + length // 2)
        file.write(b"\xff\xd0\xff\xc4" * 8)
    with read_slide(path) as slide, pytest.raises(SlideError, match=r"level 0 at x=480, y=480 .*damaged"):
        slide.read_region((480, 480), 0, (10, 10))
    report = tile_slides(TileConfig(slides=path, out=tmp_path / "out", workers=1, tissue={"reject_blur": False}))
    assert [row.status for row in report.rows] == ["failed"]
    assert "damaged" in report.rows[0].reason


def test_the_series_is_that_of_the_files(tmp_path, image):
    path = write_dicom(tmp_path, image, SIDE)
    write_level(tmp_path / "other.dcm", image, frames_of(image, SIDE), SIDE, SeriesInstanceUID=SERIES + ".5")
    with read_slide(path) as slide:
        assert [file.name for file in slide.files] == ["level-0.dcm", "level-1.dcm"]


def test_a_change_of_any_file_is_seen_by_the_next_run(tmp_path, image):
    path = write_dicom(tmp_path / "slides" / "case", image)
    config = TileConfig(slides=path.parent.parent, out=tmp_path / "out", workers=1)

    def run():
        return [(row.slide_id, row.status, row.reason) for row in tile_slides(config).rows]

    assert run() == [("case", "done", "")]
    assert run() == [("case", "skipped", "complete")]
    with (path.parent / "level-1.dcm").open("ab") as file:
        file.write(bytes(2))
    assert run() == [("case", "done", "the slide has changed")]
    assert run() == [("case", "skipped", "complete")]
