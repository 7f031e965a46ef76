"""Files of one score map: overlay, sheet of tiles, OME-TIFF, GeoJSON."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from longvit.explanation.geojson import write_tiles
from longvit.explanation.overlay import heatmap, overlay
from longvit.explanation.result import Explanation, ScoreMap
from longvit.explanation.tiles import sheet, tile_scores
from preprocessing.frames import GeojsonFrame, geojson_origin_l0, part_px, px_from_l0, um_from_l0
from preprocessing.slides.ome_pyramid import write_ome_pyramid
from preprocessing.store.store import PatchStore


def file_names(key: str) -> tuple[str, ...]:
    """Return the names of the files of a map over all layers."""
    return f"overlay_{key}.png", f"tiles_{key}.png", f"heatmap_{key}.ome.tif", f"{key}.geojson"


def write_files(
    folder: Path,
    explanation: Explanation,
    one: ScoreMap,
    store: PatchStore,
    image: UInt8[np.ndarray, "h w 3"],
    sheet_tiles: int,
    *,
    frame: GeojsonFrame = "qupath",
) -> None:
    """Write overlay, sheet of tiles, OME-TIFF and GeoJSON, named as in `file_names`.

    Args:
        folder: Folder to write to.
        explanation: Explanation with the map.
        one: Map to write.
        store: Store of the slide.
        image: Picture of the whole slide; its scanned part is the background of the overlay.
        sheet_tiles: Number of highest and of lowest tiles on the sheet.
        frame: Frame of the GeoJSON's coordinates.
    """
    overlay_png, sheet_png, ome_tif, geojson = (folder / name for name in file_names(one.key))
    grid = heatmap(one.scores, explanation.rc)
    extent_l0 = np.array(grid.shape[::-1]) * explanation.side_l0
    extent_px = tuple(px_from_l0(extent_l0, np.array(explanation.size_l0) / image.shape[1::-1]).tolist())
    rows, columns = part_px(store.bounds_l0, store.size_l0, image.shape[:2])
    corner_px = -columns.start, -rows.start
    figure = overlay(
        image[rows, columns], grid, extent_px, one.scale, explanation.title, one.meaning, corner_px=corner_px
    )
    _save(figure, overlay_png)
    pixel_um = tuple(um_from_l0(explanation.side_l0, explanation.mpp).tolist())
    write_ome_pyramid(ome_tif, grid, pixel_um, one.label)
    of_tiles = tile_scores(one.scores, explanation.rc, store.rc, round(store.side_l0[0] / explanation.side_l0[0]))
    origin_l0 = geojson_origin_l0(store.bounds_l0, frame)
    piece = store.piece if "piece" in store.arrays else None
    write_tiles(geojson, one, of_tiles, store.xy_l0, store.side_l0, origin_l0, piece=piece)
    _save(sheet(store, of_tiles, one, sheet_tiles), sheet_png)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png")
