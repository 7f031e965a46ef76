"""Order of a slide's tokens in the sequence, which decides the tokens that share a LongNet segment."""

import numpy as np
from jaxtyping import Int


def raster_order(rc: Int[np.ndarray, "l 2"]) -> Int[np.ndarray, " l"]:
    """Return indices that sort tokens row by row, left to right, as the official LongViT reads an image."""
    return np.lexsort((rc[:, 1], rc[:, 0]))
