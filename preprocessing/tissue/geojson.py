"""Masks as GeoJSON in QuPath's form: polygons in level-0 pixels, x before y, with named classes.

Coordinates may begin elsewhere than at the slide's corner (`preprocessing.frames`): QuPath crops empty borders.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError
from preprocessing.frames import l0_from_px, px_from_l0
from preprocessing.jobs.files import write_whole
from preprocessing.store.schema import MASK_CLASSES

Mask = npt.NDArray[np.uint8]
Ring = npt.NDArray[np.float64]
"""Corners (x, y) of a closed line, (n, 2)."""

CLASS_OF = {"ignore": "glass", "glass": "glass", "background": "glass", "pen": "pen", "blur": "blurred"}
"""Class by the beginning of a name in lower case (`Ignore*` is QuPath's); all other names are tissue."""
PAINTED = ("tissue", "glass", "pen", "blurred")
"""Order in which classes are painted, so that areas to be ignored are cut out of the tissue."""
COLOURS = {"tissue": (0, 150, 60), "pen": (220, 120, 0), "blurred": (0, 90, 255)}
"""Colours of the classes in QuPath, RGB."""
MAX_BYTES = 1 << 26
"""Maximum size of a file, bytes; parsed, it takes forty times as much memory."""
MAX_COORDINATE = 1e12
"""Maximum distance of a polygon's corner from the slide's top-left corner, level-0 pixels."""
MAX_POLYGONS, MAX_CROSSINGS, MAX_BOXES = 100_000, 1 << 25, 1 << 32
"""Limits on the cost of painting a file, each a few seconds.

They count polygons, mask rows crossed by edges, and mask pixels in the bounding boxes of polygons.
"""
AT_ONCE = 1 << 20
"""Number of crossings of rows and edges that are in memory at once."""
FIX = "export it again from QuPath (File, Export objects as GeoJSON, without compression)"
FIX_PLACE = "give coordinates in level-0 pixels of this slide, not in micrometres or pixels of a smaller level"


def read_geojson(
    path: Path,
    size_l0: tuple[int, int],
    shape: tuple[int, int],
    origin_l0: tuple[int, int] = (0, 0),
    fix_place: str = FIX_PLACE,
) -> Mask:
    """Read the polygons of a file as a mask, (h, w), of a slide: a pixel has the class of the polygon at its centre.

    Args:
        path: File with a FeatureCollection, a list of features or one feature. Points and lines have no area and are
            ignored.
        size_l0: Width and height of the slide, level-0 pixels.
        shape: Height and width of the mask.
        origin_l0: Level-0 pixel x, y at which the file's coordinates begin.
        fix_place: Fix in the error for polygons outside of the slide.

    Raises:
        SlideError: The file is not GeoJSON, has no polygon of tissue or none on the slide, or has more and longer edges
            than can be painted.
    """
    try:
        painted = [polygon for feature in _features(_parsed(path)) for polygon in _polygons(feature)]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        what = f"the mask is not GeoJSON of polygons ({type(error).__name__}: {str(error)[:200]})"
        raise SlideError(what, where=path, fix=FIX) from error
    if not any(name == "tissue" for name, _ in painted):
        raise SlideError(
            "the mask has no polygon of tissue", where=path, fix="draw the tissue, or leave the slide out of the cohort"
        )
    mask = np.zeros(shape, np.uint8)
    px_l0 = np.array(size_l0) / shape[::-1]
    painted = [(name, [px_from_l0(ring + origin_l0, px_l0) for ring in rings]) for name, rings in painted]
    _refuse_cost(path, [rings for _, rings in painted], shape)
    for name in PAINTED:
        for _, rings in filter(lambda polygon: polygon[0] == name, painted):
            fill_polygon(mask, rings, MASK_CLASSES[name])
        if name == "tissue" and not mask.any():
            raise SlideError(
                f"all polygons of tissue are outside of the slide, which has {size_l0[0]} x {size_l0[1]} pixels",
                where=path,
                fix=fix_place,
            )
    return mask


def write_geojson(path: Path, mask: Mask, size_l0: tuple[int, int], origin_l0: tuple[int, int] = (0, 0)) -> None:
    """Write each class of a mask, (h, w), as a MultiPolygon in level-0 pixels; `read_geojson` restores the mask.

    Args:
        path: File to write; an existing file is replaced.
        mask: Mask of the whole slide, with the classes of `MASK_CLASSES`.
        size_l0: Width and height of the slide, level-0 pixels.
        origin_l0: Level-0 pixel x, y at which the file's coordinates begin.
    """
    px_l0 = np.array(size_l0) / mask.shape[::-1]
    features = []
    for name, colour in COLOURS.items():
        polygons = [
            [(l0_from_px(ring, px_l0) - origin_l0).round(3).tolist() for ring in rings]
            for rings in outlines(mask == MASK_CLASSES[name])
        ]
        if polygons:
            properties = {"objectType": "annotation", "classification": {"name": name.capitalize(), "color": colour}}
            geometry = {"type": "MultiPolygon", "coordinates": polygons}
            features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    write_whole(path, json.dumps({"type": "FeatureCollection", "features": features}))


def fill_polygon(mask: Mask, rings: list[Ring], value: int) -> None:
    """Set the pixels of a mask, (h, w), whose centres are inside an odd number of rings to a value.

    Corners (x, y) are in mask pixels: pixel (0, 0) extends from 0 to 1. Rings may extend beyond the mask.
    """
    start, end, first, last = _edges(rings, mask.shape[0])
    left, top, right, bottom = _box(start, first, last, mask.shape[1])
    if top >= bottom or left >= right:
        return
    turns = np.zeros((bottom - top, right - left), np.uint8)
    # Edges are processed in groups, so that memory does not grow with corners times rows.
    total = np.cumsum(last - first)
    for group in np.split(np.arange(len(start)), np.searchsorted(total, np.arange(AT_ONCE, total[-1], AT_ONCE))):
        count = last[group] - first[group]
        edge = np.repeat(group, count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
        x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
        column = (
            np.ceil(x - 0.5).clip(left, right - 1).astype(int)
        )  # the first pixel whose centre is not left of the edge
        np.bitwise_xor.at(turns, (row - top, column - left), 1)
    inside = np.bitwise_xor.accumulate(turns, axis=1, out=turns)[:, : mask.shape[1] - left].astype(bool)
    mask[top:bottom, left : left + inside.shape[1]][inside] = value


def _edges(rings: list[Ring], height: int) -> tuple[Ring, Ring, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return start and end of every edge, (n, 2), the first row that it crosses and the row after the last, (n,)."""
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    # An edge crosses row r if the row's centre, r + 0.5, is between the edge's ends, the lower end included.
    first, last = (
        np.ceil(side(start[:, 1], end[:, 1]) - 0.5).clip(0, height).astype(int) for side in (np.minimum, np.maximum)
    )
    return start, end, first, last


def _box(corners: Ring, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], width: int) -> tuple[int, ...]:
    """Return left, top, right and bottom of the pixels that a polygon with these corners and rows can touch.

    They include one column right of the mask, for edges beyond it.
    """
    crossing = last > first
    if not crossing.any():
        return 0, 0, 0, 0
    left, right = (np.ceil(x - 0.5) for x in (corners[:, 0].min(), corners[:, 0].max()))
    low, high = int(max(left - 1, 0)), int(min(right + 1, width))
    return low, int(first[crossing].min()), high + 1, int(last[crossing].max())


def _refuse_cost(path: Path, polygons: list[list[Ring]], shape: tuple[int, int]) -> None:
    """Refuse polygons that would take minutes to paint, before the first is painted."""
    crossings = boxes = 0
    for number, rings in enumerate(polygons):
        start, _, first, last = _edges(rings, shape[0])
        left, top, right, bottom = _box(start, first, last, shape[1])
        crossings += int((last - first).sum())
        boxes += max(0, right - left) * (bottom - top)
        if number >= MAX_POLYGONS or crossings > MAX_CROSSINGS or boxes > MAX_BOXES:
            raise SlideError(
                f"the mask has {len(polygons)} polygons with more and longer edges than can be painted",
                where=path,
                fix="simplify the annotations in QuPath (Objects, Annotations, Simplify shape) and export them again",
            )


def outlines(region: npt.NDArray[np.bool_]) -> list[list[Ring]]:
    """Return polygons that contain exactly the pixel centres of a region, (h, w): each an outer ring and its holes."""
    z = np.pad(region, 1).astype(np.float32)
    lines = contourpy.contour_generator(z=z, fill_type=contourpy.FillType.OuterOffset).filled(0.5, 2.0)
    polygons = []
    for points, offsets in zip(*lines, strict=True):
        rings = np.split(points - 0.5, offsets[1:-1].astype(int))  # pixel centres are at 0.5, one pixel was padded
        polygons.append(rings)
    return polygons


def _parsed(path: Path) -> Any:  # noqa: ANN401 - any JSON
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 20} MB")
    return json.loads(path.read_bytes())


def _features(document: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
    if isinstance(document, dict):
        document = document["features"] if document["type"] == "FeatureCollection" else [document]
    return [feature for feature in document if feature["type"] == "Feature" and feature["geometry"]]


def _polygons(feature: dict[str, Any]) -> list[tuple[str, list[Ring]]]:
    """Return the polygons of a feature, each with its class; empty for points and lines."""
    name, polygons = _class_of(feature.get("properties") or {}), list(_coordinates(feature["geometry"]))
    if not all(polygons):
        raise ValueError("a polygon has no rings")
    return [(name, [_ring(ring) for ring in rings]) for rings in polygons]


def _coordinates(geometry: dict[str, Any]) -> Iterator[list[list[list[float]]]]:
    """Yield the rings of each polygon in a geometry; QuPath's merged objects are collections of geometries."""
    match geometry["type"]:
        case "Polygon":
            yield geometry["coordinates"]
        case "MultiPolygon":
            yield from geometry["coordinates"]
        case "GeometryCollection":
            for part in geometry["geometries"]:
                yield from _coordinates(part)


def _ring(corners: list[list[float]]) -> Ring:
    ring = np.asarray([corner[:2] for corner in corners], np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
        raise ValueError("a ring has fewer than three corners, or a corner is not a pair of numbers")
    if not (np.abs(ring) <= MAX_COORDINATE).all():
        raise ValueError(f"a corner is not a pair of numbers up to {MAX_COORDINATE:g}")
    return ring


def _class_of(properties: dict[str, Any]) -> str:
    given = properties.get("classification") or {}
    name = given.get("name") or next(iter(given.get("names") or []), "")
    return next((kind for start, kind in CLASS_OF.items() if name.lower().startswith(start)), "tissue")
