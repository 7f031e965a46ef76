"""Backend for DICOM slides in frames that OpenSlide does not decode."""

import os
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.config import disable_value_validation

from preprocessing.jobs.system import open_binary
from preprocessing.slides.dicom import series_files
from preprocessing.slides.dicom_level import DicomLevel, Part, level_size, read_part
from preprocessing.slides.tiled import read_region

UM_PER_MM = 1000.0


class DicomBackend:
    """DICOM slide whose levels are the files of a series.

    Raises:
        ValueError: A level cannot be decoded, is not complete, or is stored twice; or there is no level.
        Exception: Any error of pydicom for a damaged header.
    """

    vendor = "dicom"
    tagged_mpp: tuple[float, float] | None = None
    bounds_l0: tuple[int, int, int, int] | None = None

    @disable_value_validation()  # its warnings are irrelevant here
    def __init__(self, path: Path) -> None:
        of_size: dict[tuple[int, int], list[Part]] = defaultdict(list)
        with ExitStack() as opened:
            for file in series_files(path):
                descriptor = open_binary(file)
                opened.callback(os.close, descriptor)
                if part := read_part(file, descriptor):
                    of_size[level_size(part.said)].append(part)
            finest = sorted(of_size.items(), reverse=True)
            if not finest:
                raise ValueError("the files contain only labels, overviews or thumbnails")
            self._levels = [DicomLevel(parts) for _, parts in finest]
            self.stated_mpp, self.objective_power = _resolution(finest[0][1][0].said)
            self._opened = opened.pop_all()
        self.level_sizes = [level.size for level in self._levels]
        self.decoded_pixels = max(level.piece[0] * level.piece[1] for level in self._levels)

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `Backend.read`."""
        return read_region(self._levels, xy_l0, level, size)

    def close(self) -> None:
        """See `Backend.close`."""
        self._opened.close()


def _resolution(said: Dataset) -> tuple[tuple[float, float] | None, float | None]:
    """Return micrometres per pixel, x and y, and objective power, each None if the header has none."""
    shared = said.get("SharedFunctionalGroupsSequence") or [Dataset()]
    measures = shared[0].get("PixelMeasuresSequence") or [Dataset()]
    spacing = measures[0].get("PixelSpacing")  # between rows, then between columns (DICOM PS3.3, 10.7.1.3), mm
    mpp = (float(spacing[1]) * UM_PER_MM, float(spacing[0]) * UM_PER_MM) if spacing else None
    paths = said.get("OpticalPathSequence") or [Dataset()]
    power = paths[0].get("ObjectiveLensPower")
    return mpp, None if power is None else float(power)
