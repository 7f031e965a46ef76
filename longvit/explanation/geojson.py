"""GeoJSON of tile scores for QuPath: one rectangle per tile in level-0 pixels, with a measurement and a class.

On slides with empty borders, coordinates begin where the setting `geojson_frame` says (`preprocessing.frames`).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from longvit.explanation.result import ScoreMap

FOR, AGAINST = ("Speaks for", (178, 24, 43)), ("Speaks against", (33, 102, 172))
"""Classes of signed scores, with their RGB colours in QuPath."""
HIGH, REST = ("Highest tenth", (253, 231, 37)), ("Rest", (59, 82, 139))
"""Classes of unsigned scores, with their RGB colours in QuPath."""


def write_tiles(
    path: Path,
    one: ScoreMap,
    scores: Float[np.ndarray, " n"],
    xy_l0: Int[np.ndarray, "n 2"],
    side_l0: tuple[float, float],
    origin_l0: tuple[int, int] = (0, 0),
    *,
    piece: Int[np.ndarray, " n"] | None = None,
) -> None:
    """Write the tiles as detections, which QuPath colours by their measurement (Measure, Show measurement maps).

    Args:
        path: File to write, `.geojson`.
        one: Map whose name and sign are written.
        scores: Score of each tile.
        xy_l0: Top-left corner x, y of each tile, level-0 pixels.
        side_l0: Width and height of a tile, level-0 pixels.
        origin_l0: Level-0 pixel x, y at which the file's coordinates begin.
        piece: Piece of tissue of each tile, a second measurement; None if the store has no pieces.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        measured = {one.key: scores} | ({} if piece is None else {"Piece": piece})
        file.write(",\n".join(map(json.dumps, _features(one, measured, xy_l0 - origin_l0, side_l0))))
        file.write("\n]}\n")


def _features(
    one: ScoreMap, measured: dict[str, np.ndarray], xy_l0: np.ndarray, side_l0: tuple[float, float]
) -> Iterator[dict[str, object]]:
    scores = measured[one.key]
    upper, lower, limit = (FOR, AGAINST, 0.0) if one.signed else (HIGH, REST, float(np.quantile(scores, 0.9)))
    rows = zip(*(values.tolist() for values in measured.values()), strict=True)
    for score, (x, y), row in zip(scores.tolist(), xy_l0.tolist(), rows, strict=True):
        name, colour = upper if score >= limit else lower
        right, bottom = x + side_l0[0], y + side_l0[1]
        ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {
                "objectType": "detection",
                "classification": {"name": name, "color": colour},
                "measurements": dict(zip(measured, row, strict=True)),
            },
        }
