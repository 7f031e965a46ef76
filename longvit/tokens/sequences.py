"""Sequences of a patient's slides: one sequence per slide, or one for all slides."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from longvit.config import TokenInput
from longvit.tokens.batch import TokenBatch
from longvit.tokens.joined import JoinedPieces
from longvit.tokens.pieces import SlidePieces
from preprocessing.store.store import open_store

Slides = tuple[str, ...]
"""Ids of the slides of one sequence."""


def sequences(slides: Sequence[str], fusion: Literal["late", "early"]) -> list[Slides]:
    """Return the sequences of a patient's slides: one per slide, or with early fusion one for all slides."""
    return [tuple(slides)] if fusion == "early" else [(slide,) for slide in slides]


def sequence_pieces(stores: Mapping[str, Path], settings: TokenInput, slides: Slides) -> JoinedPieces:
    """Return the tokens of a sequence in pieces.

    Raises:
        StoreError: A store cannot be read, or cannot provide such tokens.
    """
    return JoinedPieces([SlidePieces(open_store(stores[slide]), settings) for slide in slides])


def read_tokens(
    stores: Mapping[str, Path], settings: TokenInput, slides: Slides, share: Callable[[int], range] | None = None
) -> TokenBatch:
    """Return the tokens of a sequence, as a batch of one.

    Args:
        stores: Store of each slide.
        settings: Input of the encoder.
        slides: Slides of the sequence.
        share: Function from the sequence's length to the part to read; default: all.

    Raises:
        StoreError: A store cannot be read, or cannot provide such tokens.
    """
    pieces = sequence_pieces(stores, settings, slides)
    return pieces.gathered(share(len(pieces.rank_L)) if share else None)
