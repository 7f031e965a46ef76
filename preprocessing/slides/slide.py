"""Slides that can be read at any resolution, with the source of their own resolution, which is never guessed."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError
from preprocessing.frames import part_px
from preprocessing.jpeg.from_tiff import JpegTiff
from preprocessing.jpeg.level import SCALES, WHITE, Decode, JpegLevel
from preprocessing.slides.backends import Backend, open_backend
from preprocessing.slides.dicom import slide_file
from preprocessing.slides.resolution import contradictions, resolve_mpp
from preprocessing.slides.sanity import refuse_blank, refuse_sizes
from preprocessing.slides.source import slide_files
from preprocessing.store.schema import MAX_OVERVIEW_PX, MppSource

if TYPE_CHECKING:
    from preprocessing.jpeg.from_dicom import JpegDicom

LEVEL_TOLERANCE = 1.02
"""Factor by which a level may be coarser than wanted: pyramids halve odd sizes, so ratios such as 4.0008 occur."""
STRIP_PIXELS = 1 << 21
"""Pixels read at once for the overview."""
PLAIN_TIFF = ("aperio", "generic-tiff", "ome-tiff", "philips")
"""Vendors whose levels are TIFF pages of adjacent tiles; in other formats tiles overlap or leave gaps."""
DICOM = "dicom"
MAX_DIFFERENCE = 2.0
"""Maximum mean absolute difference between a tile read directly and through the backend's library, grey levels.

On five slides, two of them real, it was 0. It is 7 to 27 for a shift by one pixel, 45 to 77 for another tile, and 49
for other colours.
"""


@dataclass(frozen=True)
class Sampling:
    """Source of pixels of a wanted size: a level, and the factor `scale` by which it is reduced during decoding."""

    level: int
    scale: int
    downsample: float
    """Level-0 pixels per decoded pixel, along each side."""
    channels: int = 3
    """3 for RGB; 1 for luma only, which a JPEG decoder gives in two thirds of the time."""


class Slide:
    """Open slide, a context manager. Sizes are (width, height), positions (x, y). Threads may share an instance.

    Attributes:
        path: The opened file.
        files: All files of the slide, the opened file first.
        vendor: OpenSlide's name of the format, such as `aperio`, `dicom` or `generic-tiff`; or `ome-tiff`.
        size_l0: Size of level 0, pixels.
        bounds_l0: Left, top, width and height of the part that was scanned; None if the file states none.
        level_sizes: Size of every level, pixels.
        downsamples: Level-0 pixels per pixel of each level, along each side.
        mpp_l0: Micrometres per pixel of level 0.
        mpp_source: Source of `mpp_l0`: `manifest`, `metadata`, `objective` or `flag`.
        contradictions: Sentences about statements in the file that contradict `mpp_l0`.
        jpeg_levels: Levels whose JPEG tiles are read directly, by number.
    """

    def __init__(self, path: Path, backend: Backend, mpp_l0: float, mpp_source: MppSource) -> None:
        self.path, self.files, self.mpp_l0 = path, slide_files(path), mpp_l0
        self.mpp_source: MppSource = mpp_source
        self._backend = backend
        self.vendor, self.level_sizes, self.size_l0 = backend.vendor, backend.level_sizes, backend.level_sizes[0]
        width_l0, height_l0 = self.size_l0
        self.bounds_l0 = backend.bounds_l0
        self.contradictions = contradictions(
            mpp_l0, mpp_source, backend.stated_mpp, backend.tagged_mpp, backend.objective_power
        )
        self.downsamples = [(width_l0 / width + height_l0 / height) / 2 for width, height in self.level_sizes]
        self._jpeg = self._open_jpeg()
        self.jpeg_levels = self._jpeg.levels if self._jpeg and self._agrees(self._jpeg.levels.get(0)) else {}
        self._decoders: dict[int, Decode] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._backend.close()
        if self._jpeg:
            self._jpeg.close()

    def _open_jpeg(self) -> "JpegTiff | JpegDicom | None":
        if self.vendor in PLAIN_TIFF:
            return JpegTiff(self.path, self.level_sizes)
        if self.vendor != DICOM:
            return None
        from preprocessing.jpeg.from_dicom import JpegDicom  # here, since pydicom loads slowly

        jpeg = JpegDicom(self.files, self.level_sizes)
        if jpeg.contradicts_colours:
            jpeg.close()
            raise SlideError(
                "the colours are not known: PhotometricInterpretation of the DICOM header contradicts the JPEG frames",
                where=self.path,
                fix="correct PhotometricInterpretation (YBR_FULL_422 for frames with a JFIF header), or leave it out",
            )
        return jpeg

    def _agrees(self, level_0: JpegLevel | None) -> bool:
        """Return whether the longest tile of level 0, which has the most detail, equals the backend's reading of it.

        Other levels are not compared: if their sizes were rounded, OpenSlide may shift them by parts of a pixel.
        """
        if level_0 is None:
            return True
        row, column = divmod(int(level_0.lengths.argmax()), level_0.lengths.shape[1])
        xy = column * level_0.tile[0], row * level_0.tile[1]
        try:
            theirs = self._backend.read(xy, 0, level_0.tile)
            return float(cv2.absdiff(level_0.read(xy, level_0.tile), theirs).mean()) <= MAX_DIFFERENCE
        except Exception:  # the tile is damaged, which is reported when it is read
            return True

    @contextmanager
    def forgiving(self, most: int) -> Iterator[Collection[SlideError]]:
        """Read up to `most` undecodable JPEG tiles of the slide as white while the block runs.

        Yields:
            An error with reason and position for each such tile, in a collection that grows as tiles are read.
        """
        lost: dict[tuple[int, int, int], SlideError] = {}
        self._decoders = {number: partial(self._decode_or_white, lost, most, number) for number in self.jpeg_levels}
        try:
            yield lost.values()
        finally:
            self._decoders = {}

    def _decode_or_white(
        self, lost: dict[tuple[int, int, int], SlideError], most: int, number: int, *tile: int
    ) -> npt.NDArray[np.uint8]:
        level, (row, column, scale, channels) = self.jpeg_levels[number], tile
        (width, height), downsample = level.tile, self.downsamples[number]
        try:
            return level.decode(row, column, scale, channels)
        except ValueError as error:
            xy_l0 = round(column * width * downsample), round(row * height * downsample)
            found = lost.setdefault((number, row, column), undecodable(self.path, number, xy_l0, error))
            if len(lost) > most:
                raise found from error
            return np.full((height // scale, width // scale, channels), WHITE, np.uint8)

    def read_region(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Read `size` pixels of a level at the level-0 position `xy_l0` as RGB, (h, w, 3); white outside the slide.

        Raises:
            SlideError: The file cannot be decoded there.
        """
        downsample = self.downsamples[level]
        xy = round(xy_l0[0] / downsample), round(xy_l0[1] / downsample)
        return self._read(Sampling(level, 1, downsample), xy, xy_l0, size)

    def read_scaled(
        self, xy_l0: tuple[int, int], size_l0: tuple[float, float], size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Read a rectangle in level-0 pixels, resized to `size` pixels by area averaging, as RGB, (h, w, 3).

        The coarsest level that is fine enough is read. The rectangle is rounded to whole decoded pixels.
        """
        sampling = self.sampling(size_l0[0] / size[0])
        xy = round(xy_l0[0] / sampling.downsample), round(xy_l0[1] / sampling.downsample)
        width, height = (max(1, round(side / sampling.downsample)) for side in size_l0)
        pixels = self._read(sampling, xy, xy_l0, (width, height))
        if (width, height) == size:
            return pixels
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def read_sampled(
        self,
        sampling: Sampling,
        xy: tuple[int, int],
        size: tuple[int, int],
        decode: Decode | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Read a rectangle in the decoded pixels of a sampling, (h, w, channels); white outside of the slide.

        Args:
            sampling: Result of `Slide.sampling`, possibly with other channels.
            xy: Top-left corner.
            size: Width and height.
            decode: Decoder of tiles for a level in `jpeg_levels`; default, the level's own.

        Raises:
            SlideError: The file cannot be decoded there.
        """
        xy_l0 = round(xy[0] * sampling.downsample), round(xy[1] * sampling.downsample)
        return self._read(sampling, xy, xy_l0, size, decode)

    def _read(
        self,
        sampling: Sampling,
        xy: tuple[int, int],
        xy_l0: tuple[int, int],
        size: tuple[int, int],
        decode: Decode | None = None,
    ) -> npt.NDArray[np.uint8]:
        try:
            if sampling.level in self.jpeg_levels:
                decode = decode or self._decoders.get(sampling.level)
                return self.jpeg_levels[sampling.level].read(xy, size, sampling.scale, decode, sampling.channels)
            pixels = self._backend.read(xy_l0, sampling.level, size)
            return pixels if sampling.channels == 3 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
        except SlideError:  # already names the position
            raise
        except Exception as error:  # OpenSlide, tifffile and its codecs share no other base class
            raise undecodable(self.path, sampling.level, xy_l0, error) from error

    def sampling(self, downsample: float) -> Sampling:
        """Return the coarsest level and its largest scale with at most `downsample` level-0 pixels per pixel.

        A pixel may be 2 % larger. Pixels finer than wanted are averaged after reading.
        """
        level = self.level_for(downsample)
        own, jpeg = self.downsamples[level], self.jpeg_levels.get(level)
        scale = max(
            (
                scale
                for scale in SCALES
                if jpeg and jpeg.can_scale(scale) and own * scale <= downsample * LEVEL_TOLERANCE
            ),
            default=1,
        )
        return Sampling(level, scale, own * scale)

    def level_for(self, downsample: float) -> int:
        """Return the coarsest level with at most `downsample` level-0 pixels per pixel, or 2 % more; else level 0."""
        fine_enough = [i for i, own in enumerate(self.downsamples) if own <= downsample * LEVEL_TOLERANCE]
        return max(fine_enough, key=self.downsamples.__getitem__, default=0)

    def overview(self, mask_um: float, apply: Callable = map) -> npt.NDArray[np.uint8]:
        """Read the whole slide as RGB, (h, w, 3), with pixels of `mask_um` micrometres.

        Pixels are larger if the longer side would have more than `MAX_OVERVIEW_PX` pixels. Empty borders are white,
        and are not read.

        Args:
            mask_um: Side of a pixel, micrometres.
            apply: `map`, or the `map` of an executor whose threads share the work.

        Raises:
            SlideError: The file cannot be decoded, or decodes to black or white only.
        """
        (width_l0, height_l0) = self.size_l0
        px_l0 = max(mask_um / self.mpp_l0, max(self.size_l0) / MAX_OVERVIEW_PX)
        width, height = (max(1, int(np.ceil(round(side / px_l0, 6)))) for side in self.size_l0)
        out = np.full((height, width, 3), WHITE, np.uint8)
        rows, columns = part = part_px(self.bounds_l0, self.size_l0, (height, width))
        left_l0, right_l0 = (round(x * width_l0 / width) for x in (columns.start, columns.stop))

        def fill(strip: slice) -> None:
            y_l0, end_l0 = (round(y * height_l0 / height) for y in (strip.start, strip.stop))
            size = columns.stop - columns.start, strip.stop - strip.start
            out[strip, columns] = self.read_scaled((left_l0, y_l0), (right_l0 - left_l0, end_l0 - y_l0), size)

        for _ in apply(fill, self._strips(rows, width)):
            pass
        refuse_blank(self.path, out[part])
        return out

    def _strips(self, rows: slice, width: int) -> list[slice]:
        """Return the rows of an overview of this width in strips, which limit the memory for large slides."""
        per_pixel = (self.size_l0[0] / width / self.sampling(self.size_l0[0] / width).downsample) ** 2
        step = max(1, int(STRIP_PIXELS / (width * per_pixel)))
        return [slice(top, min(top + step, rows.stop)) for top in range(rows.start, rows.stop, step)]


def undecodable(path: Path, level: int, xy_l0: tuple[int, int], error: Exception) -> SlideError:
    """Return the error for pixels that cannot be decoded, at a level-0 position."""
    return SlideError(
        f"cannot decode level {level} at x={xy_l0[0]}, y={xy_l0[1]} ({error})",
        where=path,
        fix="the file is damaged: copy it again from its source, leave it out, "
        "or leave out such tiles with --tolerate-bad-tiles",
    )


def read_slide(
    path: Path | str,
    mpp: float | None = None,
    mpp_if_missing: float | None = None,
    mpp_from_objective: bool = False,
) -> Slide:
    """Open a slide.

    Args:
        path: A file that OpenSlide or tifffile reads, or a folder with the DICOM files of one slide. For slides of
            several files, the file that OpenSlide opens.
        mpp: Resolution of level 0 in the manifest, micrometres per pixel; overrides the slide's own.
        mpp_if_missing: Resolution of level 0 for a slide that does not state its own, micrometres per pixel.
        mpp_from_objective: Use `10 / power` as the resolution of a slide that states only its objective's power.

    Raises:
        SlideError: The file cannot be read or claims impossible sizes, or its resolution is missing, implausible, or
            different in x and y.

    >>> with read_slide("slides/slide-1.svs") as slide:  # doctest: +SKIP
    ...     slide.mpp_l0, slide.mpp_source
    (0.499, 'metadata')
    """
    path = slide_file(Path(path))
    backend = open_backend(path)
    try:
        refuse_sizes(path, backend.level_sizes, backend.decoded_pixels)
        mpp_l0, source = resolve_mpp(
            path,
            manifest=mpp,
            stated=backend.stated_mpp,
            objective_power=backend.objective_power,
            from_objective=mpp_from_objective,
            flag=mpp_if_missing,
        )
        return Slide(path, backend, mpp_l0, source)
    except Exception:
        backend.close()
        raise
