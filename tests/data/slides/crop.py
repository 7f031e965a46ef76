"""Crops of a scanner's slide as Aperio SVS, generic TIFF and DICOM, whose JPEG tiles are copied as bytes.

    python tests/data/slides/crop.py ../shared/data/slides/CMU-1-Small-Region.svs tests/data/slides

All three show 920 x 900 pixels of the slide, from (480, 0): 4 x 4 tiles of 240 pixels, of which the last row and the
last column reach beyond the crop.
"""

import sys
from pathlib import Path

import tifffile
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

SIDE = 240
ROWS, COLUMNS = range(4), range(2, 6)
X_L0, Y_L0 = COLUMNS[0] * SIDE, ROWS[0] * SIDE
WIDTH, HEIGHT = 920, 900
MPP = 0.499
NAMES = ("aperio.svs", "generic.tif", "dicom.dcm")


def read_tiles(slide: Path) -> tuple[list[bytes], bytes, str]:
    """Return the crop's tiles, row by row, the JPEG tables that they share, and the slide's description."""
    with tifffile.TiffFile(slide) as file:
        page, data = file.pages[0], slide.read_bytes()
        places = [row * page.chunked[1] + column for row in ROWS for column in COLUMNS]
        spans = [(page.dataoffsets[i], page.databytecounts[i]) for i in places]
        return [data[start : start + length] for start, length in spans], page.jpegtables, page.description


def write_tiff(path: Path, tiles: list[bytes], tables: bytes, **options: object) -> None:
    """Write a TIFF of one level of RGB tiles."""
    layout = {"shape": (HEIGHT, WIDTH, 3), "dtype": "uint8", "tile": (SIDE, SIDE), "photometric": "rgb"}
    layout |= {"compression": "jpeg", "jpegtables": tables, "compressionargs": {"outcolorspace": "RGB"}}
    tifffile.imwrite(path, iter(tiles), metadata=None, software=False, **layout, **options)


def write_svs(path: Path, tiles: list[bytes], tables: bytes, description: str) -> None:
    """Write an Aperio slide: its words on the region changed to the crop's, all others as the scanner wrote them."""
    place = f"[{42673 + X_L0},{5576 + Y_L0} {WIDTH}x{HEIGHT}]"
    words = description.replace("[42673,5576 2220x2967]", place)
    write_tiff(path, tiles, tables, description=words)


def write_dicom(path: Path, tiles: list[bytes], tables: bytes) -> None:
    """Write a DICOM slide of one level. Each frame is a tile after the tables, which DICOM does not share."""
    spacing, shared = Dataset(), Dataset()
    spacing.PixelSpacing = [MPP / 1000, MPP / 1000]
    shared.PixelMeasuresSequence = [spacing]
    level = FileDataset(str(path), {}, preamble=bytes(128))
    level.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(level, name, generate_uid(entropy_srcs=["CMU-1-Small-Region", name]))
    level.Modality, level.Manufacturer, level.PatientID = "SM", "Aperio", "CMU-1"
    level.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    level.DimensionOrganizationType = "TILED_FULL"
    level.SamplesPerPixel, level.PhotometricInterpretation, level.PlanarConfiguration = 3, "RGB", 0
    level.NumberOfFrames, level.Rows, level.Columns = len(tiles), SIDE, SIDE
    level.BitsAllocated, level.BitsStored, level.HighBit, level.PixelRepresentation = 8, 8, 7, 0
    level.TotalPixelMatrixColumns, level.TotalPixelMatrixRows = WIDTH, HEIGHT
    level.ImagedVolumeWidth, level.ImagedVolumeHeight = WIDTH * MPP / 1000, HEIGHT * MPP / 1000
    level.LossyImageCompression = "01"
    level.SharedFunctionalGroupsSequence = [shared]
    level.PixelData = encapsulate([tables[:-2] + tile[2:] for tile in tiles])  # without END, without a second START
    level.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    level.file_meta.MediaStorageSOPClassUID = level.SOPClassUID
    level.file_meta.MediaStorageSOPInstanceUID = level.SOPInstanceUID
    level.save_as(path, enforce_file_format=True)


def crop(slide: Path, folder: Path) -> None:
    """Write the three crops of CMU-1-Small-Region.svs to a folder."""
    tiles, tables, description = read_tiles(slide)
    svs, tiff, dicom = (folder / name for name in NAMES)
    write_svs(svs, tiles, tables, description)
    pixels_per_cm = (10_000_000, round(MPP * 1000))
    write_tiff(tiff, tiles, tables, resolution=(pixels_per_cm, pixels_per_cm), resolutionunit="CENTIMETER")
    write_dicom(dicom, tiles, tables)


if __name__ == "__main__":
    crop(Path(sys.argv[1]), Path(sys.argv[2]))
