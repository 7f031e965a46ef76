"""Several slides as one sequence: each slide is placed below the previous slide in the grid, with a gap between."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from longvit.tokens.batch import TokenBatch
from longvit.tokens.pieces import Pieces

GAP = 32
"""Empty rows of tokens between two slides.

The gap equals the side of the 1,024-pixel regions that LongViT is pretrained on. So no such region shows two slides,
and tokens of two slides are never neighbours.
"""


def row_offsets(slides_rc: Sequence[Tensor]) -> list[int]:
    """Return the rows by which each slide is moved down; 0 for the first. Slides are given by their (L, 2) places."""
    rows = [0]
    for rc_L2 in slides_rc[:-1]:
        rows.append(rows[-1] + int(rc_L2[:, 0].max()) + 1 + GAP)
    return rows


class JoinedPieces(Pieces):
    """Tokens of several slides as one sequence, slide after slide, each in raster order; no token is left out.

    A learned table of positions is stretched over all slides together, as over a single slide.
    """

    def __init__(self, slides: Sequence[Pieces]) -> None:
        self.slides, self.source = slides, slides[0].source
        self.rows = row_offsets([slide.rc_L2 for slide in slides])
        moved = [slide.rc_L2 + torch.tensor([row, 0]) for slide, row in zip(slides, self.rows, strict=True)]
        self.rc_L2 = torch.cat(moved)
        lengths = [len(slide.rc_L2) for slide in slides]
        self.starts = [sum(lengths[:place]) for place in range(len(lengths))]
        ranks = [slide.rank_L + start for slide, start in zip(slides, self.starts, strict=True)]
        self.rank_L = torch.cat(ranks)

    def ahead(self, threads: int, part: range | None = None) -> Iterator[tuple[Int64[Tensor, " l"], TokenBatch]]:
        """Yield all pieces in turn, slide after slide, as `Pieces.ahead` does."""
        part = range(len(self.rank_L)) if part is None else part
        for slide, row, start in zip(self.slides, self.rows, self.starts, strict=True):
            inside = range(max(0, part.start - start), min(len(slide.rank_L), part.stop - start))
            for rank_l, piece in slide.ahead(threads, inside) if inside else ():
                placed = TokenBatch(piece.x, piece.rc_BL2 + torch.tensor([row, 0]), piece.mask_BL)
                yield rank_l + start, placed
