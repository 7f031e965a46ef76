"""Scores of the store's tiles from scores of tokens, and a sheet of the tiles with the highest and lowest scores."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from longvit.explanation.result import ScoreMap
from preprocessing.store.store import PatchStore

_IN_A_ROW = 6


def tile_of_tokens(
    rc: Int[np.ndarray, "L 2"], tiles_rc: Int[np.ndarray, "n 2"], per_side: int
) -> Int[np.ndarray, " L"]:
    """Return the index of each token's tile.

    Args:
        rc: Row and column of each token; every token is in a tile.
        tiles_rc: Row and column of each tile.
        per_side: Tokens along the side of a tile.
    """
    columns = int(tiles_rc[:, 1].max()) + 1
    number = tiles_rc[:, 0].astype(np.int64) * columns + tiles_rc[:, 1]
    of_token = rc[:, 0] // per_side * columns + rc[:, 1] // per_side
    order = np.argsort(number)
    return order[np.searchsorted(number[order], of_token)]


def tile_scores(
    scores: Float[np.ndarray, " L"], rc: Int[np.ndarray, "L 2"], tiles_rc: Int[np.ndarray, "n 2"], per_side: int
) -> Float[np.ndarray, " n"]:
    """Return the mean score of the tokens in each tile.

    Args:
        scores: Scores of the tokens.
        rc: Row and column of each token; every token is in a tile, and every tile has tokens.
        tiles_rc: Row and column of each tile.
        per_side: Tokens along the side of a tile.
    """
    tile = tile_of_tokens(rc, tiles_rc, per_side)
    return np.bincount(tile, scores, len(tiles_rc)) / np.bincount(tile, minlength=len(tiles_rc))


def sheet(store: PatchStore, scores: Float[np.ndarray, " n"], one: ScoreMap, most: int) -> Figure:
    """Return a figure of the tiles with the highest scores above the tiles with the lowest, with scores and places.

    Args:
        store: Store of the slide.
        scores: Score of each tile.
        one: Map of the scores, for the title.
        most: Number of highest and of lowest tiles; fewer for a small slide, so that no tile is shown twice.
    """
    order = np.argsort(-scores, kind="stable")
    most = max(1, min(most, len(order) // 2))
    rows = -(-most // _IN_A_ROW)
    columns = min(most, _IN_A_ROW)
    figure = Figure(figsize=(1.5 * max(columns, 4), 2 * (1.75 * rows + 0.3)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(2, 1, squeeze=False).ravel()
    for part, name, chosen in zip(parts, ("highest", "lowest"), (order[:most], order[::-1][:most]), strict=True):
        part.suptitle(f"{one.label}: {name}", fontsize=10)
        axes = part.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        for ax, tile in zip(axes, chosen.tolist(), strict=False):
            ax.imshow(store.read_tiles([tile])[0])
            x, y = store.xy_l0[tile].tolist()
            ax.set_title(f"{scores[tile]:.3g}\nat {x}, {y}", fontsize=7)
    return figure
