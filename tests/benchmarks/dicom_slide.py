"""A slide as DICOM, with the same JPEG tiles: a file for each level, without tables of offsets.

    python tests/benchmarks/dicom_slide.py slide20_240.svs slide20_240_dicom

The Imaging Data Commons has TCGA's slides in this form: Aperio's tiles of 240 pixels, unchanged, in frames.
"""

import argparse
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

from preprocessing.jpeg.level import JpegLevel
from preprocessing.slides.slide import read_slide


def write_level(path: Path, level: JpegLevel, mpp: float, series: str) -> None:
    """Write a level as a file, with only the elements that OpenSlide requires."""
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = [measures]
    tiles = level.fetch(np.argwhere(np.ones_like(level.lengths)))
    frames = [b"".join(tile) for tile in tiles]
    file = FileDataset(path, {}, preamble=bytes(128))
    facts = {
        "SOPClassUID": VLWholeSlideMicroscopyImageStorage,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": series,
        "ImageType": ["DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "DimensionOrganizationType": "TILED_FULL",
        "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0,
        "SamplesPerPixel": 3,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "NumberOfFrames": len(frames),
        "Columns": level.tile[0],
        "Rows": level.tile[1],
        "TotalPixelMatrixColumns": level.size[0],
        "TotalPixelMatrixRows": level.size[1],
        "SharedFunctionalGroupsSequence": [shared],
        "PixelData": encapsulate(frames, has_bot=False),
    }
    for name, value in facts.items():
        setattr(file, name, value)
    file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.save_as(path, enforce_file_format=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path, help="a TIFF whose levels are JPEG tiles in YCbCr, without missing tiles")
    parser.add_argument("folder", type=Path)
    a = parser.parse_args()
    a.folder.mkdir()
    series = generate_uid()
    with read_slide(a.slide) as slide:
        for number, level in slide.jpeg_levels.items():
            write_level(a.folder / f"level-{number}.dcm", level, slide.mpp_l0 * slide.downsamples[number], series)


if __name__ == "__main__":
    main()
