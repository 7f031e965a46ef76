"""Largest sizes of slides and stores. A header costs nothing to forge, so it is checked before memory is taken."""

from pathlib import Path

from preprocessing.errors import SlideError

MAX_PIXELS = 1 << 38
"""Pixels of level 0. A whole glass slide, 75 x 26 mm, at 0.1 micrometres has 2e11; nobody scans more."""
MAX_DECODED_BYTES = 1 << 30
"""Memory of a tile or strip, which is decoded whole. Tiles of scanners take 3 MB at most; what takes more than a
gigabyte is a picture kept in one piece, and several workers would hold one each."""
MAX_OVERVIEW_PX = 4096
"""Longer side of an overview: slides of more than 33 mm get larger overview pixels than the usual 8 um, not more."""
MAX_TILE_PX = 4096
"""Side of a tile; 50 MB of pixels."""
MAX_CANVAS_PX = 1 << 18
"""Side of a canvas."""
MAX_TILES = 1 << 26
"""Tiles of a slide, glass too: 262,144 x 262,144 pixels in tiles of 32."""
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
