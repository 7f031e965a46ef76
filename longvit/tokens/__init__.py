"""Tokens of slides, the input of an encoder, read from stores.

`TokenBatch` contains tokens, their places and a mask; `SlideDataset` reads whole slides from stores in raster order.
"""

from longvit.tokens.batch import TokenBatch as TokenBatch
from longvit.tokens.dataset import SlideDataset as SlideDataset
