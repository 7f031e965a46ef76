"""Deep zoom: a picture as a pyramid of square JPEG tiles, each level half the size of the next. Pure functions.

Level `max_level` is the finest; `_dz` marks pixels of a level. The browser's image is always the whole slide, so places
on the page are shares of the slide, and do not depend on the resolution of the pyramid.
"""

from dataclasses import dataclass
from math import ceil, log2

TILE_DZ = 256
"""Side of a tile of the pyramid, pixels."""
Box = tuple[float, float, float, float]
"""Left, top, width and height of a rectangle, level-0 pixels."""


@dataclass(frozen=True)
class Pyramid:
    """Pyramid of one slide.

    Attributes:
        size_l0: Width and height of the slide, level-0 pixels.
        size_dz: Width and height of the finest level.
    """

    size_l0: tuple[int, int]
    size_dz: tuple[int, int]

    @classmethod
    def of(cls, size_l0: tuple[int, int], finest: tuple[int, int], max_px: int | None) -> "Pyramid":
        """Return the pyramid of a picture of `finest` pixels, with a longer side of at most `max_px`.

        >>> Pyramid.of((4000, 2000), (2000, 1000), 500).size_dz
        (500, 250)
        """
        share = 1.0 if max_px is None else min(1.0, max_px / max(finest))
        width, height = (max(1, round(side * share)) for side in finest)
        return cls(size_l0, (width, height))

    @property
    def max_level(self) -> int:
        """Return the number of the finest level; level 0 is a single pixel."""
        return ceil(log2(max(self.size_dz)))

    @property
    def min_level(self) -> int:
        """Return the finest level that is a single tile: the browser requests no coarser level."""
        return max((level for level in range(self.max_level + 1) if self.tiles(level) == (1, 1)), default=0)

    def level_size(self, level: int) -> tuple[int, int]:
        """Return width and height of a level, pixels."""
        width, height = (-(-side // 2 ** (self.max_level - level)) for side in self.size_dz)
        return width, height

    def tiles(self, level: int) -> tuple[int, int]:
        """Return the number of columns and rows of tiles of a level."""
        columns, rows = (-(-side // TILE_DZ) for side in self.level_size(level))
        return columns, rows

    def tile(self, level: int, column: int, row: int) -> tuple[Box, tuple[int, int]] | None:
        """Return the rectangle that a tile shows, and its width and height; None if the pyramid has no such tile."""
        if not self.min_level <= level <= self.max_level:
            return None
        columns, rows = self.tiles(level)
        if not (0 <= column < columns and 0 <= row < rows):
            return None
        step = 2 ** (self.max_level - level)
        sides = self.level_size(level)
        x_dz, y_dz = column * TILE_DZ, row * TILE_DZ
        width_dz, height_dz = min(TILE_DZ, sides[0] - x_dz), min(TILE_DZ, sides[1] - y_dz)
        x_l0, y_l0 = (l0 / dz * step for l0, dz in zip(self.size_l0, self.size_dz, strict=True))
        return (x_dz * x_l0, y_dz * y_l0, width_dz * x_l0, height_dz * y_l0), (width_dz, height_dz)
