"""Reports of tiling: `tile_report.csv` with a row per slide, and the page `tile_report.html` with their pictures."""

import base64
import csv
import re
from collections import Counter
from dataclasses import asdict, dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import few
from preprocessing.jobs.files import write_whole
from preprocessing.jpeg.codec import Jpeg
from preprocessing.store.schema import MASK_CLASSES
from preprocessing.tissue.pieces import Labels

THUMBNAIL_PX = 320
"""Longer side of a slide's picture on the page, pixels."""
NUMBERED_PX = 960
"""Longer side of a picture with the numbers of pieces, pixels; a microarray has hundreds."""
OUTLINES = {"tissue": (0, 150, 60), "pen": (220, 120, 0), "blurred": (0, 90, 255)}
"""Colour of the outline of each class, RGB."""
PICTURES = "tile_report"
"""Folder of the slides' pictures, next to the page."""
PICTURES_IN_PAGE = 300
"""Number of slides up to which the page contains the pictures and is a single file; larger pages would not open."""

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Tiling report</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }}
ul {{ list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)) }}
li {{ border: 1px solid #ccc; border-top: 4px solid #3a8f5c; padding: .8rem; overflow-wrap: anywhere }}
li.failed {{ border-top-color: #c0392b }} li.warned {{ border-top-color: #d68910 }}
img {{ max-width: 100%; display: block; margin: .5rem 0 }} p {{ margin: .2rem 0 }} .warning {{ color: #a04000 }}
</style>
<h1>Tiling report</h1>
<p>{summary}</p>
<p>Outlines: <b style="color:#00963c">green</b> tissue, <b style="color:#dc7800">orange</b> pen marks,
<b style="color:#005aff">blue</b> tissue out of focus.</p>
<ul>
{slides}
</ul>
</html>
"""


NUMBER = re.compile(r"\d+(?:\.\d+)?")
SEPARATOR = "; "
"""Text between the warnings of a slide."""
MOST_NAMED = 3
"""Number of slides of a cause that are named on the console; the table has all."""
COLUMNS = ("slide_id", "status", "reason", "fix", "n_tiles", "mpp", "mpp_source", "seconds")
"""Columns of `tile_report.csv`."""


@dataclass(frozen=True)
class SlideRow:
    """Outcome of one slide. In the table `warnings` are appended to `reason`."""

    slide_id: str
    status: Literal["done", "skipped", "failed"]
    reason: str = ""
    fix: str = ""
    n_tiles: int = 0
    mpp: float | None = None
    """Resolution of level 0, micrometres per pixel."""
    mpp_source: str = ""
    """Source of `mpp`: `manifest`, `metadata`, `objective` or `flag`."""
    seconds: float = 0.0
    warnings: str = ""
    replaced: bool = False
    """True if an existing store was replaced; `reason` is why the slide was tiled again."""
    lost: tuple[str, ...] = ()
    """Names of the features in the replaced store."""


@dataclass(frozen=True)
class TileReport:
    """Outcomes of all slides of a run, in the order of the manifest."""

    out: Path
    rows: list[SlideRow]

    @property
    def exit_code(self) -> int:
        """0 if every slide has a store, else 1."""
        return int(any(row.status == "failed" for row in self.rows))

    @property
    def page_path(self) -> Path:
        """Path of the page."""
        return self.out / "tile_report.html"

    @property
    def summary(self) -> str:
        """Counts of slides by outcome; on a second line the reasons why stores were replaced, and lost features."""
        counts = {status: sum(row.status == status for row in self.rows) for status in ("failed", "done", "skipped")}
        slides = "1 slide" if len(self.rows) == 1 else f"{len(self.rows)} slides"
        text = f"{slides}: " + ", ".join(f"{count} {status}" for status, count in counts.items())
        if warned := sum(bool(row.warnings) for row in self.rows):
            text += f" ({warned} with warnings: see {self.page_path.name})"
        causes = Counter(row.reason.partition(" (")[0] for row in self.rows if row.replaced)
        if causes:
            text += "\ntiled again: " + ", ".join(f"{count} ({cause})" for cause, count in causes.items())
        if lost := sum(len(row.lost) for row in self.rows):
            text += f"; {lost} set{'s' * (lost != 1)} of features lost with the old stores"
        return text

    @property
    def problems(self) -> list[str]:
        """Sentences on warnings and failures, one for each cause, with the number and the names of its slides.

        Causes that differ only in numbers are one cause; the sentence is that of the first slide.
        """
        causes: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for row in self.rows:
            for warning in filter(None, row.warnings.split(SEPARATOR)):
                causes.setdefault(("warning", _without_numbers(warning)), []).append((row.slide_id, warning))
            if row.status == "failed":
                text = f"{row.reason}\n  fix:   {row.fix}"
                causes.setdefault(("failed", _without_numbers(text)), []).append((row.slide_id, text))
        failures_last = sorted(causes.items(), key=lambda item: item[0][0] == "failed")
        return [f"{kind}: {_counted(slides)}: {slides[0][1]}" for (kind, _), slides in failures_last]

    def save(self) -> None:
        """Write `tile_report.csv` and `tile_report.html` next to the stores, atomically even with concurrent writers.

        Raises:
            OutputError: The files cannot be written.
        """
        table = StringIO(newline="")
        writer: csv.DictWriter[str] = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(
            asdict(row) | {"reason": "; ".join(filter(None, (row.reason, row.warnings)))} for row in self.rows
        )
        write_whole(self.out / "tile_report.csv", table.getvalue())
        write_whole(self.page_path, self._page())

    def _page(self) -> str:
        in_page = len(self.rows) <= PICTURES_IN_PAGE
        items = sorted(_item(row, _picture(self.out, row.slide_id, in_page)) for row in self.rows)
        return PAGE.format(
            summary=escape(f"{self.summary}.").replace("\n", ".<br>"), slides="\n".join(html for _, html in items)
        )


def _without_numbers(text: str) -> str:
    return NUMBER.sub("0", text)


def _counted(slides: list[tuple[str, str]]) -> str:
    names = [name for name, _ in slides]
    return names[0] if len(names) == 1 else f"{len(names)} slides ({few(names, MOST_NAMED)})"


def outlined(
    overview: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], labels: Labels | None = None
) -> npt.NDArray[np.uint8]:
    """Return the overview, (h, w, 3), reduced, with outlines of its mask's classes and the numbers of its pieces.

    The longer side has at most `THUMBNAIL_PX` pixels, or `NUMBERED_PX` with numbers.

    Args:
        overview: The overview.
        mask: Mask (h, w), with the classes of `schema.MASK_CLASSES`.
        labels: Pieces of the mask (h, w).
    """
    scale = min(1.0, (THUMBNAIL_PX if labels is None else NUMBERED_PX) / max(mask.shape))
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    picture = cv2.resize(overview, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    small = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    for name, colour in OUTLINES.items():
        region = (small == MASK_CLASSES[name]).astype(np.uint8)
        contours, _ = cv2.findContours(region, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, contours, -1, colour, 1)
    for piece in () if labels is None else np.unique(labels[labels >= 0]).tolist():
        y, x = np.nonzero(labels == piece)
        place = round(x.mean() * scale) - 4 * len(str(piece)), round(y.mean() * scale) + 5
        for colour, width in (((255, 255, 255), 3), ((0, 0, 0), 1)):
            cv2.putText(picture, str(piece), place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, width, cv2.LINE_AA)
    return picture


def picture_path(out: Path, slide_id: str) -> Path:
    """Return the path of a slide's picture."""
    return out / PICTURES / f"{slide_id}.jpg"


def save_picture(
    out: Path,
    slide_id: str,
    overview: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    labels: Labels | None = None,
) -> None:
    """Write the picture of a slide, as `outlined` returns it."""
    path = picture_path(out, slide_id)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, Jpeg(level=75).encode_image(outlined(overview, mask, labels)))


def _picture(out: Path, slide_id: str, in_page: bool) -> str:
    """Return the address of a slide's picture on the page: data or a relative path; empty without a picture."""
    path = picture_path(out, slide_id)
    if not path.exists():
        return ""
    if not in_page:
        return quote(path.relative_to(out).as_posix())
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _item(row: SlideRow, picture: str) -> tuple[tuple[int, str], str]:
    """Return the sort key of a slide on the page (failures first, then warnings) and its HTML."""
    lines = [f"<b>{escape(row.slide_id)}</b> {row.status}"]
    if row.reason:
        lines.append(escape(row.reason))
    if row.lost:
        lines.append(f"Lost features of the old store: {escape(', '.join(row.lost))}")
    if row.fix:
        lines.append(f"Fix: {escape(row.fix)}")
    if row.warnings:
        lines.append(f'<span class="warning">{escape(row.warnings)}</span>')
    if row.n_tiles:
        lines.append(f"{row.n_tiles} tiles; level 0 has {row.mpp:.4g} um/px (source: {escape(row.mpp_source)})")
    image = f'<img alt="overview" loading="lazy" src="{picture}">' if picture else ""
    rank, kind = (0, "failed") if row.status == "failed" else (1, "warned") if row.warnings else (2, "fine")
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return (rank, row.slide_id), f'<li class="{kind}">{image}{paragraphs}</li>'
