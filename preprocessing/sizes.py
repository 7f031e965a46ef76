"""Which sizes a slide may claim: checked in its header, which costs nothing to forge, before a pixel is decoded."""

from pathlib import Path

from preprocessing.errors import SlideError

MAX_PIXELS = 1 << 38
"""Pixels of level 0. A whole glass slide, 75 x 26 mm, at 0.1 micrometres has 2e11; nobody scans more."""
MAX_DECODED_BYTES = 1 << 30
"""Memory of a tile or strip, which is decoded whole. Tiles of scanners take 3 MB at most; what takes more than a
gigabyte is a picture kept in one piece, and several workers would hold one each."""
BYTES_PER_PIXEL = 4
"""OpenSlide decodes to RGBA."""
LEVEL_SLACK = 0.02
"""Levels may differ that much in shape: some are padded to whole tiles."""


def refuse_sizes(path: Path, level_sizes: list[tuple[int, int]], decoded_pixels: int) -> None:
    """Refuse a slide that cannot be as large as it says, or be read in the memory of a worker.

    Args:
        path: The slide, for the error.
        level_sizes: Size (width, height) of every level, the finest first.
        decoded_pixels: Pixels of its largest tile or strip.

    Raises:
        SlideError: It is too large, its pieces are, or its levels are not of one picture.
    """
    width, height = level_sizes[0]
    if width * height > MAX_PIXELS:
        raise SlideError(
            f"it claims {width} x {height} pixels, more than the {MAX_PIXELS:.2g} of a whole glass slide at 0.1 um",
            where=path,
            fix="the file is damaged or made up: copy it again from where it came, or leave it out",
        )
    if decoded_pixels * BYTES_PER_PIXEL > MAX_DECODED_BYTES:
        raise SlideError(
            f"a tile or strip of {decoded_pixels} pixels takes more than {MAX_DECODED_BYTES >> 30} GiB to decode",
            where=path,
            fix="convert it to a tiled pyramid (`vips tiffsave in.tif out.tif --tile --pyramid --compression jpeg`)",
        )
    for number, (level_width, level_height) in enumerate(level_sizes):
        off = abs(level_width * height - level_height * width)  # 0 where the shapes are the same
        if off > width + height + LEVEL_SLACK * level_width * height:  # a pixel of rounding on either side
            raise SlideError(
                f"its levels are not of one picture: level 0 has {width} x {height} pixels, "
                f"level {number} {level_width} x {level_height}",
                where=path,
                fix="the file is damaged or of a kind that is not read right: convert it to a pyramidal TIFF",
            )
