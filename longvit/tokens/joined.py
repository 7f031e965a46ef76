"""Slides of one patient as one sequence: slide after slide, each below the last in the grid with a gap between."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from longvit.tokens.batch import TokenBatch
from longvit.tokens.pieces import SlidePieces

GAP = 32
"""Empty rows of tokens between two slides: the side of the 1,024-pixel regions that LongViT is pretrained on, so that
no such region shows two slides, and no token of one is ever a neighbour of another's."""


def first_rows(slides_rc: Sequence[Tensor]) -> list[int]:
    """Rows by which each slide, given by its tokens' places (L, 2), is moved down; the first stays where it is."""
    rows = [0]
    for rc_L2 in slides_rc[:-1]:
        rows.append(rows[-1] + int(rc_L2[:, 0].max()) + 1 + GAP)
    return rows


def join_slides(slides: Sequence[TokenBatch]) -> TokenBatch:
    """Slides, each a batch of one in raster order -> one batch of one, again in raster order; nothing is left out.

    A learned table of positions is stretched over all slides together, as it is over one.
    """
    rows = first_rows([slide.rc_BL2[0] for slide in slides])
    moved = [slide.rc_BL2 + torch.tensor([row, 0]) for slide, row in zip(slides, rows, strict=True)]
    return TokenBatch(
        torch.cat([slide.x for slide in slides], dim=1),
        torch.cat(moved, dim=1),
        torch.cat([slide.mask_BL for slide in slides], dim=1),
    )


class JoinedPieces:
    """The tokens of several slides in pieces, as `SlidePieces` gives those of one; places as in `join_slides`."""

    def __init__(self, slides: Sequence[SlidePieces]) -> None:
        self.slides = slides
        self.rows = first_rows([slide.rc_L2 for slide in slides])
        moved = [slide.rc_L2 + torch.tensor([row, 0]) for slide, row in zip(slides, self.rows, strict=True)]
        self.rc_L2: Int64[Tensor, "L 2"] = torch.cat(moved)
        """Row and column of each token, in the stores' order."""
        lengths = torch.tensor([0, *(len(slide.rc_L2) for slide in slides)])
        self.starts = lengths.cumsum(0)[:-1].tolist()
        ranks = [slide.rank_L + start for slide, start in zip(slides, self.starts, strict=True)]
        self.rank_L: Int64[Tensor, " L"] = torch.cat(ranks)
        """Place of each token in the sequence."""

    def ahead(self, threads: int) -> Iterator[tuple[Int64[Tensor, " l"], TokenBatch]]:
        """All pieces in turn, slide after slide, as of `SlidePieces.ahead`."""
        for slide, row, start in zip(self.slides, self.rows, self.starts, strict=True):
            for rank_l, piece in slide.ahead(threads):
                placed = TokenBatch(piece.x, piece.rc_BL2 + torch.tensor([row, 0]), piece.mask_BL)
                yield rank_l + start, placed
