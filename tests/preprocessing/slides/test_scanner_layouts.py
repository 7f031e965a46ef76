"""Law: slides laid out as Philips, Leica, Ventana and Hamamatsu lay them out are read as OpenSlide reads them.

The files are made here, so that is what they cannot show: what real scanners get wrong.
"""

from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from preprocessing import TileConfig, open_store, tile_slides
from preprocessing.errors import SlideError
from preprocessing.slides.openslide import OpenSlideBackend
from preprocessing.slides.slide import read_slide

MPP = 0.5
JPEG = {"compression": "jpeg", "compressionargs": {"level": 95}, "photometric": "rgb", "metadata": None}
RESOLUTION = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}


def halved(image):
    return image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def padded(image, side):
    down, across = (-length % side for length in image.shape[:2])
    return np.pad(image, ((0, down), (0, across), (0, 0)), constant_values=255)


def philips(path, image):
    """Levels padded to whole tiles, their true sizes told by pixel spacings; tiles of glass left out."""
    spacings = [f"&quot;{MPP * scale / 1000}&quot; &quot;{MPP * scale / 1000}&quot;" for scale in (1, 2)]
    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING">{spacing}</Attribute>'
        "</DataObject>"
        for spacing in spacings
    )
    description = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        f'<Attribute Name="DICOM_PIXEL_SPACING">{spacings[0]}</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{levels}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate((image, halved(image))):
            options = {"tile": (256, 256), "software": "Philips DP v1.0", "subfiletype": number and 1} | JPEG
            tiff.write(padded(level, 256), description=description if number == 0 else "", **options)
    with tifffile.TiffFile(path) as tiff, path.open("r+b") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            file.seek(tiff.pages[0].tags[name].valueoffset)  # of the first tile
            file.write(bytes(4))
    return image.shape[1::-1], (0, 0)


def leica(path, image):
    """One scanned area on a glass that is larger, which the levels cover; a picture of the whole glass comes first."""
    (height, width), nm, (left, top) = image.shape[:2], round(MPP * 1000), (128, 64)
    glass = (width + 256) * nm, (height + 128) * nm
    light = (
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>"
    )
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection sizeX="{glass[0]}" sizeY="{glass[1]}">'
        f'<image><pixels><dimension ifd="0" sizeX="128" sizeY="128"/></pixels>'
        f'<view sizeX="{glass[0]}" sizeY="{glass[1]}" offsetX="0" offsetY="0"/>{light}</image>'
        f'<image><pixels><dimension ifd="1" sizeX="{width}" sizeY="{height}"/>'
        f'<dimension ifd="2" sizeX="{width // 2}" sizeY="{height // 2}"/></pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{left * nm}" offsetY="{top * nm}"/>{light}</image>'
        "</collection></scn>"
    )
    options = {"tile": (128, 128)} | JPEG | RESOLUTION
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(np.full((128, 128, 3), 200, np.uint8), description=description, **options)
        tiff.write(image, **options)
        tiff.write(halved(image), subfiletype=1, **options)
    return (width + 256, height + 128), (left, top)


def ventana(path, image, side=256, overlap=16):
    """A BIF: tiles that overlap, numbered in a serpent from below, joined by what the XML says."""
    advance = side - overlap
    rows, columns = ((length - side) // advance + 1 for length in image.shape[:2])

    def number(row, column):
        up = rows - 1 - row
        return up * columns + (columns - 1 - column if up % 2 else column) + 1

    def joint(direction, one, other, across, up):
        return (
            f'<TileJointInfo FlagJoined="1" Confidence="90" Direction="{direction}" Tile1="{number(*one)}" '
            f'Tile2="{number(*other)}" OverlapX="{across}" OverlapY="{up}"/>'
        )

    places = list(np.ndindex(rows, columns))
    joints = [joint("RIGHT", (r, c), (r, c + 1), overlap, 0) for r, c in places if c + 1 < columns]
    joints += [joint("UP", (r, c), (r - 1, c), 0, overlap) for r, c in places if r]
    stitched = (
        '<?xml version="1.0"?><EncodeInfo Ver="2"><SlideStitchInfo>'
        f'<ImageInfo AOIScanned="1" AOIIndex="0" Width="{side}" Height="{side}" NumRows="{rows}" NumCols="{columns}" '
        f'Pos-X="0" Pos-Y="0">{"".join(joints)}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    ).encode()
    scan = f'<?xml version="1.0"?><iScan Magnification="20" ScanRes="{MPP}"/>'.encode()
    tiles = np.zeros((rows * side, columns * side, 3), np.uint8)
    for row, column in np.ndindex(rows, columns):
        tile = image[row * advance : row * advance + side, column * advance : column * advance + side]
        tiles[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
    options = {"tile": (side, side)} | JPEG
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        label = np.full((64, 64, 3), 90, np.uint8)
        tiff.write(label, photometric="rgb", description="Label Image", metadata=None, extratags=[xmp(scan)])
        tiff.write(tiles, description="level=0 mag=20 quality=95", extratags=[xmp(stitched)], **options)
        tiff.write(padded(halved(tiles), side), description="level=1 mag=10 quality=95", **options)
    return (columns * advance + overlap, rows * advance + overlap), (0, 0)


def xmp(text):
    return (700, "B", len(text), text, False)


def hamamatsu(path, image):
    """An NDPI: a level is one JPEG with restart markers, by which OpenSlide finds its way into it."""
    with tifffile.TiffWriter(path) as tiff:
        for lens, level in ((20.0, image), (10.0, halved(image))):
            jpeg = BytesIO()
            Image.fromarray(level).save(
                jpeg, "JPEG", quality=95, subsampling="4:2:2", restart_marker_blocks=8
            )  # 128 x 8
            tags = [(65420, "I", 1, 1, False), (65421, "f", 1, lens, False), (65424, "i", 1, 0, False)]
            tiff.write(
                iter([jpeg.getvalue()]), shape=level.shape, dtype=np.uint8, rowsperstrip=len(level), extratags=tags,
                **JPEG, **RESOLUTION,
            )  # fmt: skip
    return image.shape[1::-1], (0, 0)


SCANNERS = {
    "philips": (philips, "tiff"),
    "leica": (leica, "scn"),
    "ventana": (ventana, "bif"),
    "hamamatsu": (hamamatsu, "ndpi"),
}


@pytest.fixture(scope="module", params=SCANNERS)
def scanned(request, tmp_path_factory, image):
    """A slide of one of the scanners, who made it, its size, and where the picture lies in it."""
    write, suffix = SCANNERS[request.param]
    path = tmp_path_factory.mktemp(request.param) / f"slide.{suffix}"
    return path, request.param, *write(path, image)


def test_a_slide_of_each_scanner_has_its_levels_pixels_and_resolution(scanned, image):
    path, vendor, size, (left, top) = scanned
    with read_slide(path) as slide:
        assert (slide.vendor, slide.size_l0, slide.mpp_source) == (vendor, size, "metadata")
        assert slide.mpp_l0 == pytest.approx(MPP)
        assert slide.downsamples[:2] == pytest.approx([1, 2], rel=0.01)
        for x, y in ((300, 280), (611, 333)):
            region = slide.read_region((left + x, top + y), 0, (200, 150)).astype(int)
            assert np.abs(region - image[y : y + 150, x : x + 200]).mean() < 5
        half = slide.read_region((left + 300, top + 280), 1, (100, 80)).astype(int)
        assert np.abs(half - halved(image)[140:220, 150:250]).mean() < 6
        assert slide.read_region((size[0] + 10, size[1] + 10), 0, (20, 20)).min() == 255


def test_a_slide_of_each_scanner_is_tiled(scanned, image, tmp_path):
    path, vendor, _, (left, top) = scanned
    report = tile_slides(TileConfig(slides=path, out=tmp_path, mpp=MPP, tile_px=128, workers=1))
    assert [row.status for row in report.rows] == ["done"]
    store = open_store(tmp_path / "slide.zarr")
    height, width = image.shape[:2]
    assert store.bounds_l0 == ((left, top, width, height) if vendor == "leica" else None)
    xy = store.xy_l0 - (left, top)
    inside = np.flatnonzero(((xy >= 256) & (xy + 128 <= (1200, 960))).all(axis=1))
    assert len(inside) > 10
    for tile, (x, y) in zip(store.read_tiles(inside), xy[inside], strict=True):
        assert np.abs(tile.astype(int) - image[y : y + 128, x : x + 128]).mean() < 6


def test_tiles_of_philips_are_kept_and_those_of_scanners_that_overlap_or_shift_them_are_not(scanned, tmp_path):
    path, vendor, *_ = scanned
    with read_slide(path) as slide:
        assert set(slide.jpeg_levels) == ({0, 1} if vendor == "philips" else set())
        for level in slide.jpeg_levels:
            size = tuple(side + 50 for side in slide.level_sizes[level])
            region = slide.read_region((0, 0), level, size)
            np.testing.assert_array_equal(region, slide._backend.read((0, 0), level, size))
    tile_slides(TileConfig(slides=path, out=tmp_path, mpp=MPP, workers=1))
    assert open_store(tmp_path / "slide.zarr").attributes["passthrough"] is (vendor == "philips")


@pytest.mark.parametrize("direction", ["LEFT", "DOWN"])
def test_tiles_of_ventana_that_openslide_cannot_join_are_refused_and_not_read_side_by_side(tmp_path, image, direction):
    ventana(tmp_path / "a.bif", image)
    data, other = (tmp_path / "a.bif").read_bytes(), f'Direction="{direction}"'.encode()
    (tmp_path / "a.bif").write_bytes(data.replace(b'Direction="RIGHT"', other.ljust(17)))
    with pytest.raises(SlideError, match=r"OpenSlide cannot read this slide of ventana: .*irection"):
        read_slide(tmp_path / "a.bif")


def test_what_philips_left_out_is_white_though_it_opens(tmp_path, image):
    philips(tmp_path / "slide.tiff", image)
    with read_slide(tmp_path / "slide.tiff") as slide:
        assert slide.read_region((0, 0), 0, (256, 256)).min() == 255
        assert slide.read_region((256, 256), 0, (256, 256)).min() < 200


def stated(monkeypatch, **bounds) -> None:
    numbers = {f"openslide.bounds-{name}": value for name, value in bounds.items()}
    number = OpenSlideBackend._number
    monkeypatch.setattr(OpenSlideBackend, "_number", lambda self, name: numbers.get(name, number(self, name)))


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"x": 256, "y": 128, "width": 1000},
        {"x": 256, "y": 128, "width": 1025, "height": 10},
        {"x": -1, "y": 0, "width": 5, "height": 5},
        {"x": 0, "y": 0, "width": 0, "height": 5},
        {"x": 0, "y": float("nan"), "width": 5, "height": 5},
        {"x": 0, "y": 0, "width": float("inf"), "height": 5},
    ],
)
def test_bounds_that_are_not_stated_or_leave_the_slide_are_none(svs, monkeypatch, bounds):
    stated(monkeypatch, **bounds)
    with read_slide(svs) as slide:
        assert (slide.size_l0, slide.bounds_l0) == ((1280, 1024), None)
