from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longvit.config import EmbeddingInput, PixelInput
from longvit.tokens import TokenBatch
from longvit.tokens.joined import GAP, JoinedPieces, row_offsets
from longvit.tokens.pieces import Pieces, SlidePieces
from longvit.tokens.read import slide_tokens
from preprocessing.store.features import add_embeddings

places = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=20, unique=True)


@dataclass
class Numbers(Pieces):
    """A slide of one number per token, counted on from `first`; its store has them in the order of `rc`."""

    rc: list[tuple[int, int]]
    first: int = 0
    source = SimpleNamespace(width=1, dtype=np.float32)

    def __post_init__(self) -> None:
        self.rc_L2 = torch.tensor(self.rc)
        self.rank_L = torch.tensor([sorted(self.rc).index(place) for place in self.rc])

    def ahead(self, threads: int, part: range | None = None) -> Iterator[tuple[torch.Tensor, TokenBatch]]:
        """One token at a time."""
        assert part in {None, range(len(self.rank_L))}
        for rank, rc in zip(self.rank_L, self.rc_L2, strict=True):
            yield rank[None], TokenBatch.of_one((rank[None, None] + self.first).float(), rc[None])


def join_slides(slides: list[Numbers]) -> TokenBatch:
    return JoinedPieces(slides).gathered()


batch = Numbers


@given(slides=st.lists(places, min_size=1, max_size=4))
def test_joined_slides_are_all_tokens_one_slide_after_the_other_in_raster_order(slides):
    firsts = [sum(map(len, slides[:i])) for i in range(len(slides))]
    joined = join_slides([batch(rc, first) for rc, first in zip(slides, firsts, strict=True)])
    assert joined.x.flatten().tolist() == list(range(sum(map(len, slides))))
    assert joined.mask_BL.all()
    rc = [tuple(place) for place in joined.rc_BL2[0].tolist()]
    assert rc == sorted(set(rc))


@given(slides=st.lists(places, min_size=2, max_size=4))
def test_slides_keep_their_shape_and_lie_a_gap_apart(slides):
    rows_of = join_slides([batch(rc) for rc in slides]).rc_BL2[0].split([len(rc) for rc in slides])
    for rc, moved in zip(slides, rows_of, strict=True):
        shift = moved - torch.tensor(sorted(rc))
        assert (shift[:, 1] == 0).all()
        assert (shift[:, 0] == shift[0, 0]).all()
    for above, below in pairwise(rows_of):
        assert below[:, 0].min() - above[:, 0].max() > GAP


@given(rc=places)
def test_a_single_slide_stays_where_it_is(rc):
    assert join_slides([batch(rc)]).rc_BL2[0].tolist() == [list(place) for place in sorted(rc)]
    assert row_offsets([batch(rc).rc_L2]) == [0]


@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_of_several_slides_make_up_their_joined_tokens(save_store, threads):
    source = PixelInput(patch_px=16)
    stores = [save_store("a", [[0, 0], [0, 1], [3, 1]]), save_store("b", [[1, 2], [2, 0]])]
    one, other = (slide_tokens(store, source) for store in stores)
    below = torch.tensor([int(one.rc_BL2[..., 0].max()) + 1 + GAP, 0])
    rc_BL2 = torch.cat([one.rc_BL2, other.rc_BL2 + below], dim=1)
    whole = TokenBatch(torch.cat([one.x, other.x], dim=1), rc_BL2, torch.ones(rc_BL2.shape[:2]).bool())
    pieces = JoinedPieces([SlidePieces(store, source, tokens=16) for store in stores])
    assert pieces.rc_L2[pieces.rank_L.argsort()].equal(whole.rc_BL2[0])
    seen = torch.zeros(whole.mask_BL.shape[1], dtype=torch.int64)
    for rank_l, piece in pieces.ahead(threads):
        assert whole.x[:, rank_l].equal(piece.x)
        assert whole.rc_BL2[:, rank_l].equal(piece.rc_BL2)
        seen[rank_l] += 1
    assert (seen == 1).all()
    gathered = pieces.gathered()
    assert gathered.x.equal(whole.x)
    assert gathered.rc_BL2.equal(whole.rc_BL2)


def test_a_source_is_joined_whatever_its_tokens_are(save_store):
    store = save_store("a", [[0, 0]])
    add_embeddings(store.path, "tile", np.ones((1, 3), np.float32), {})
    pieces = SlidePieces(store, EmbeddingInput(encoder="tile", dim=3))
    assert JoinedPieces([pieces] * 2).gathered().rc_BL2[0].tolist() == [[0, 0], [1 + GAP, 0]]
