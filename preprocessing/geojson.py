"""Masks as GeoJSON, as QuPath writes and reads it: polygons in level-0 pixels, x before y, classes by their names."""

import json
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError
from preprocessing.files import write_whole
from preprocessing.schema import MASK_CLASSES

Mask = npt.NDArray[np.uint8]
Ring = npt.NDArray[np.float64]
"""Corners x, y of a closed line, (n, 2)."""

CLASS_OF = {"ignore": "glass", "glass": "glass", "background": "glass", "pen": "pen", "blur": "blurred"}
"""How the name of a class begins, in lower case, that is not tissue (`Ignore*` is QuPath's); all others are."""
PAINTED = ("tissue", "glass", "pen", "blurred")
"""The order in which classes are painted: what is to be ignored is cut out of the tissue."""
COLOURS = {"tissue": (0, 150, 60), "pen": (220, 120, 0), "blurred": (0, 90, 255)}
"""RGB that QuPath shows."""
FIX = "export it again from QuPath (File, Export objects as GeoJSON, without compression)"


def read_geojson(path: Path, size_l0: tuple[int, int], shape: tuple[int, int]) -> Mask:
    """Paint the polygons of a file on a mask (h, w) of a slide: a pixel belongs to what its centre lies in.

    Args:
        path: A FeatureCollection, a list of features or one feature; points and lines have no area and are left out.
        size_l0: Width and height of the slide, level-0 pixels.
        shape: Height and width of the mask.

    Raises:
        SlideError: The file is no GeoJSON, has no polygon of tissue, or none that lies on the slide.
    """
    try:
        painted = [polygon for feature in _features(json.loads(path.read_bytes())) for polygon in _polygons(feature)]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise SlideError(
            f"the mask is no GeoJSON of polygons ({type(error).__name__}: {error})", where=path, fix=FIX
        ) from error
    if not any(name == "tissue" for name, _ in painted):
        raise SlideError(
            "the mask has no polygon of tissue", where=path, fix="draw the tissue, or leave the slide out of the cohort"
        )
    mask = np.zeros(shape, np.uint8)
    per_px_l0 = np.array(size_l0) / shape[::-1]
    for name in PAINTED:
        for _, rings in filter(lambda polygon: polygon[0] == name, painted):
            fill_polygon(mask, [ring / per_px_l0 for ring in rings], MASK_CLASSES[name])
        if name == "tissue" and not mask.any():
            raise SlideError(
                f"every polygon lies outside of the slide, which has {size_l0[0]} x {size_l0[1]} pixels",
                where=path,
                fix="give coordinates in level-0 pixels of this slide, not in micrometres or pixels of a smaller level",
            )
    return mask


def write_geojson(path: Path, mask: Mask, size_l0: tuple[int, int]) -> None:
    """Write the classes of a mask (h, w) as a MultiPolygon each, in level-0 pixels; read back, it is the same."""
    scale = np.array(size_l0) / mask.shape[::-1]
    features = []
    for name, colour in COLOURS.items():
        polygons = [
            [(ring * scale).round(3).tolist() for ring in rings] for rings in outlines(mask == MASK_CLASSES[name])
        ]
        if polygons:
            properties = {"objectType": "annotation", "classification": {"name": name.capitalize(), "color": colour}}
            geometry = {"type": "MultiPolygon", "coordinates": polygons}
            features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    write_whole(path, json.dumps({"type": "FeatureCollection", "features": features}))


def fill_polygon(mask: Mask, rings: list[Ring], value: int) -> None:
    """Give a value to the pixels of a mask (h, w) whose centres lie inside an odd number of rings.

    Corners x, y are in pixels: pixel (0, 0) reaches from 0 to 1. Rings may reach beyond the mask.
    """
    height, width = mask.shape
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    # Row r is crossed by an edge if its centre, r + 0.5, lies between the edge's ends, the lower one included.
    first, last = (
        np.ceil(side(start[:, 1], end[:, 1]) - 0.5).clip(0, height).astype(int) for side in (np.minimum, np.maximum)
    )
    edge = np.repeat(np.arange(len(start)), last - first)
    if not len(edge):
        return
    row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edge]
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
    column = np.ceil(x - 0.5).clip(0, width).astype(int)  # the first pixel whose centre is not left of the edge
    top, left, bottom, right = row.min(), column.min(), row.max() + 1, column.max() + 1
    turns = np.zeros((bottom - top, right - left), np.uint8)
    np.bitwise_xor.at(turns, (row - top, column - left), 1)
    inside = np.bitwise_xor.accumulate(turns, axis=1)[:, : width - left].astype(bool)
    mask[top:bottom, left : left + inside.shape[1]][inside] = value


def outlines(region: npt.NDArray[np.bool_]) -> list[list[Ring]]:
    """Polygons, each an outer ring and those of its holes, that hold exactly the pixel centres of a region (h, w)."""
    z = np.pad(region, 1).astype(np.float32)
    lines = contourpy.contour_generator(z=z, fill_type=contourpy.FillType.OuterOffset).filled(0.5, 2.0)
    polygons = []
    for points, offsets in zip(*lines, strict=True):
        rings = np.split(points - 0.5, offsets[1:-1].astype(int))  # centres of pixels lie at 0.5, and one was padded
        polygons.append(rings)
    return polygons


def _features(document: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
    if isinstance(document, dict):
        document = document["features"] if document["type"] == "FeatureCollection" else [document]
    return [feature for feature in document if feature["type"] == "Feature" and feature["geometry"]]


def _polygons(feature: dict[str, Any]) -> list[tuple[str, list[Ring]]]:
    """The polygons of a feature with the class that they are painted as."""
    geometry = feature["geometry"]
    if geometry["type"] not in ("Polygon", "MultiPolygon"):
        return []
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    name = _class_of(feature.get("properties") or {})
    return [(name, [_ring(ring) for ring in rings]) for rings in polygons]


def _ring(corners: list[list[float]]) -> Ring:
    ring = np.asarray([corner[:2] for corner in corners], np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a ring has fewer than three corners, or one that is no pair of numbers")
    return ring


def _class_of(properties: dict[str, Any]) -> str:
    given = properties.get("classification") or {}
    name = given.get("name") or next(iter(given.get("names") or []), "")
    return next((kind for start, kind in CLASS_OF.items() if name.lower().startswith(start)), "tissue")
