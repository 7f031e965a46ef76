from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.slides.slide import read_slide
from preprocessing.tiling.square import squeezed_tile

SLIDE = Path(__file__).parents[2] / "data" / "slides" / "generic.tif"


@pytest.mark.parametrize(("tiles", "tile_st"), [(4, 64), (3, 96), (8, 256)], ids=["smaller", "a third", "larger"])
def test_tiles_of_the_square_are_those_of_the_whole_slide_squeezed_at_once(tiles, tile_st):
    with read_slide(SLIDE) as slide:
        whole = Image.fromarray(slide.read_region((0, 0), 0, slide.size_l0))
        expected = np.asarray(whole.resize((tiles * tile_st,) * 2, Image.Resampling.BICUBIC))
        for row, column in ((0, 0), (tiles // 2, 1), (tiles - 1, tiles - 1)):
            tile = squeezed_tile(slide, 0, (row, column), (tiles, tiles), tile_st)
            cut = expected[row * tile_st :, column * tile_st :][:tile_st, :tile_st]
            np.testing.assert_allclose(tile.astype(int), cut, atol=1)
