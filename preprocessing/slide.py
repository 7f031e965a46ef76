"""A slide that can be read at any resolution, and where its resolution came from: stated, never guessed."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.backends import Backend, open_backend
from preprocessing.errors import SlideError

MppSource = Literal["metadata", "manifest", "flag"]

MPP_LIMITS = (0.05, 20.0)
"""No scanner is finer or coarser, micrometres per pixel; what says so has other units, or a printer's 72 dpi."""
MAX_ANISOTROPY = 0.02
"""Pixels whose sides differ by more are not square."""
LEVEL_TOLERANCE = 1.02
"""A level may be this much coarser than wanted: pyramids halve odd sizes, so their ratios are 4.0008 and the like."""
STRIP_PIXELS = 1 << 22
"""Pixels read at once when a whole slide is made small."""
MPP_FIX = "give its level-0 resolution in the column `mpp` of a manifest CSV"


class Slide:
    """An open slide; use it as a context manager. Sizes are (width, height), places (x, y).

    Attributes:
        path: The file that was opened.
        vendor: What OpenSlide calls the format, or `tifffile`.
        size_l0: Size of level 0, pixels.
        level_sizes: Size of every level, pixels.
        downsamples: How many level-0 pixels make a pixel, for every level.
        mpp_l0: Micrometres per pixel of level 0.
        mpp_source: Who said so: `metadata`, `manifest` or `flag`.
    """

    def __init__(self, path: Path, backend: Backend, mpp_l0: float, mpp_source: MppSource) -> None:
        self.path, self.mpp_l0 = path, mpp_l0
        self.mpp_source: MppSource = mpp_source
        self._backend = backend
        self.vendor, self.level_sizes, self.size_l0 = backend.vendor, backend.level_sizes, backend.level_sizes[0]
        width_l0, height_l0 = self.size_l0
        self.downsamples = [(width_l0 / width + height_l0 / height) / 2 for width, height in self.level_sizes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._backend.close()

    def read_region(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """RGB (h, w, 3) of `size` pixels of a level from the level-0 place `xy_l0`; white outside of the slide.

        Raises:
            SlideError: The file cannot be decoded there.
        """
        try:
            return self._backend.read(xy_l0, level, size)
        except Exception as error:  # OpenSlide, tifffile and the codecs behind it share no other base
            raise SlideError(
                f"cannot decode level {level} at x={xy_l0[0]}, y={xy_l0[1]}, {size[0]} x {size[1]} pixels ({error})",
                where=self.path,
                fix="the file is damaged: copy it again from where it came, or leave it out",
            ) from error

    def read_scaled(
        self, xy_l0: tuple[int, int], size_l0: tuple[float, float], size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """RGB (h, w, 3) of a rectangle given in level-0 pixels, made `size` pixels large by area averaging.

        Reads the coarsest level that is still fine enough. The rectangle is rounded to whole pixels of that level.
        """
        level = self.level_for(size_l0[0] / size[0])
        width, height = (max(1, round(side / self.downsamples[level])) for side in size_l0)
        pixels = self.read_region(xy_l0, level, (width, height))
        if (width, height) == size:
            return pixels
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def level_for(self, downsample: float) -> int:
        """The coarsest level that is no coarser than `downsample`, or as good as."""
        fine_enough = [i for i, own in enumerate(self.downsamples) if own <= downsample * LEVEL_TOLERANCE]
        return max(fine_enough, key=self.downsamples.__getitem__, default=0)

    def overview(self, mask_um: float) -> npt.NDArray[np.uint8]:
        """The whole slide, RGB (h, w, 3), with pixels of at most `mask_um` micrometres; read in strips."""
        (width_l0, height_l0) = self.size_l0
        width, height = (max(1, int(np.ceil(side * self.mpp_l0 / mask_um))) for side in self.size_l0)
        out = np.empty((height, width, 3), np.uint8)
        for top, bottom in self._strips(width, height):
            y_l0, end_l0 = round(top * height_l0 / height), round(bottom * height_l0 / height)
            out[top:bottom] = self.read_scaled((0, y_l0), (width_l0, end_l0 - y_l0), (width, bottom - top))
        return out

    def _strips(self, width: int, height: int) -> Iterator[tuple[int, int]]:
        """Rows of the overview that are read at once, so that memory does not grow with the slide."""
        level_width, level_height = self.level_sizes[self.level_for(self.size_l0[0] / width)]
        rows = max(1, int(height * STRIP_PIXELS / (level_width * level_height)))
        for top in range(0, height, rows):
            yield top, min(top + rows, height)


def read_slide(path: Path | str, mpp: float | None = None, mpp_if_missing: float | None = None) -> Slide:
    """Open a slide.

    Args:
        path: A file that OpenSlide or tifffile reads; of a slide of several files, the one that OpenSlide wants.
        mpp: Resolution of level 0 as the manifest states it, micrometres per pixel; goes before the slide's own.
        mpp_if_missing: Resolution of level 0 for a slide that does not state one.

    Raises:
        SlideError: The file cannot be read, or its resolution is missing, absurd or differs between x and y.

    >>> with read_slide("slides/slide-1.svs") as slide:  # doctest: +SKIP
    ...     slide.mpp_l0, slide.mpp_source
    (0.499, 'metadata')
    """
    path = Path(path)
    backend = open_backend(path)
    try:
        return Slide(path, backend, *resolve_mpp(path, mpp, backend.stated_mpp, mpp_if_missing))
    except SlideError:
        backend.close()
        raise


def resolve_mpp(
    path: Path, manifest: float | None, stated: tuple[float, float] | None, flag: float | None
) -> tuple[float, MppSource]:
    """Micrometres per pixel of level 0 and who said so: the manifest, else the slide itself, else the flag.

    Raises:
        SlideError: Nobody said, or what was said cannot be.
    """
    if manifest is not None:
        return _checked(path, (manifest, manifest), "the manifest gives"), "manifest"
    if stated is not None:
        return _checked(path, stated, "the slide states"), "metadata"
    if flag is not None:
        return _checked(path, (flag, flag), "mpp_if_missing gives"), "flag"
    raise SlideError(
        "the slide does not state its resolution (no openslide.mpp-x and -y, no TIFF resolution)",
        where=path,
        fix=f"{MPP_FIX}, or pass --mpp-if-missing for all slides that lack theirs",
    )


def _checked(path: Path, mpp: tuple[float, float], who: str) -> float:
    x, y = mpp
    low, high = MPP_LIMITS
    if not (low <= x <= high and low <= y <= high):
        raise SlideError(
            f"{who} {x:.6g} x {y:.6g} micrometres per pixel, and no slide has less than {low} or more than {high}",
            where=path,
            fix=MPP_FIX,
        )
    if abs(x - y) > MAX_ANISOTROPY * min(x, y):
        raise SlideError(
            f"{who} {x:.6g} x {y:.6g} micrometres per pixel: its pixels are not square",
            where=path,
            fix=f"resample the slide to square pixels, or, if one of the two is wrong, {MPP_FIX}",
        )
    return (x + y) / 2
