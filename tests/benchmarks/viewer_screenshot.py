"""A planted tumour in the viewer: train on slide labels, explain a held-out slide, show it; writes `viewer.png`.

python tests/benchmarks/viewer_screenshot.py

Half of the slides contain a focus of tumour in stroma that is otherwise the same. A model is trained to predict which
slides do, without the position of the focus. `longvit explain` maps a held-out slide, `longvit view` serves it, and
Chromium opens it. The white line is the border of the planted tumour. It is drawn onto the picture afterwards, from the
truth, at a place computed from the slide's size only.
"""

import argparse
import base64
import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from longvit.cohort.split import run as split
from longvit.config import EncoderConfig, ExplainConfig, FinetuneConfig, PixelInput, SplitConfig
from longvit.explanation.colour import DIVERGING
from longvit.explanation.explain import run as explain_slide
from longvit.finetuning.finetune import run as finetune
from preprocessing import TileConfig, tile_slides
from preprocessing.synthetic.histology import LAYOUT_PX, LOW_GRADE, STROMA, draw_slide

HERE = Path(__file__).parent
GRID, SIDE_L0 = 16, 64
"""Squares along the side of a slide, and their side, level-0 pixels of 0.5 um; a square is a tile and a token."""
ROW, COLUMN = np.mgrid[:GRID, :GRID]
TISSUE = np.hypot(ROW - GRID / 2 + 0.5, COLUMN - GRID / 2 + 0.5) < GRID / 2 - 0.4
LABELS = ("STROMA", "TUMOUR")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = {"width": 1300, "height": 820}
READY = "window.viewer?.layer && window.viewer.picture.world.getItemAt(0)?.getFullyLoaded()"
CANVAS = "window.viewer.layers.canvas.toDataURL('image/png')"


@dataclass(frozen=True)
class Case:
    """Explained held-out slide, and its planted tumour."""

    run: Path
    explained: Path
    slide_id: str
    planted: np.ndarray
    """Mask of the squares that are tumour (GRID, GRID)."""


def make_case(folder: Path, slides: int = 40, epochs: int = 12) -> Case:
    """Draw, tile, train and explain, with all files in `folder`."""
    truth = draw(folder, slides)
    tile_slides(TileConfig(slides=folder / "slides", out=folder / "stores", mpp=1.0, tile_px=32, min_tissue=0.25))
    encoder = EncoderConfig(
        input=PixelInput(patch_px=32),
        width=64,
        depth=2,
        heads=4,
        segment_lengths=(64, 256),
        dilation_ratios=(1, 2),
        drop_path=0.0,
    )
    config = FinetuneConfig(
        stores=folder / "stores",
        table=folder / "table.csv",
        splits=split(SplitConfig(table=folder / "table.csv", out=folder / "splits")),
        folds=(0,),
        out=folder / "run",
        encoder=encoder,
        window=4,
        optimiser={"epochs": epochs, "learning_rate": 1e-3, "warmup_epochs": 1, "clip_norm": 1.0},
        loader_workers=0,
    )
    rows = pd.read_csv(finetune(config))
    first = rows[(rows["split"] == "test") & (rows["label"] == "TUMOUR")].iloc[0]["slide_id"]
    asked = {"model": config.out / "fold_0" / "model.safetensors", "stores": config.stores / f"{first}.zarr"}
    explain_slide(ExplainConfig(**asked, out=folder / "explained", target="TUMOUR", device="cpu"))
    return Case(config.out, folder / "explained", first, truth[first])


def draw(folder: Path, slides: int) -> dict[str, np.ndarray]:
    """Write slides and their table, and return the planted squares of each slide."""
    rng, truth, table = np.random.default_rng(0), {}, []
    squares = cut_squares(rng)
    (folder / "slides").mkdir(parents=True)
    for number in range(slides):
        name, label = f"PLANT-{number:02d}", LABELS[number % 2]
        image, truth[name] = compose(rng, squares, label == "TUMOUR")
        tifffile.imwrite(
            folder / "slides" / f"{name}.tiff",
            image,
            tile=(256, 256),
            photometric="rgb",
            compression="jpeg",
            metadata=None,
            resolution=(20_000, 20_000),
            resolutionunit="CENTIMETER",
        )
        table.append({"case_id": name, "slide_id": name, "oncotree_code": label})
    pd.DataFrame(table).to_csv(folder / "table.csv", index=False)
    return truth


def cut_squares(rng: np.random.Generator, drawings: int = 6) -> dict[str, list[np.ndarray]]:
    """Return squares that are all stroma or all tumour, from slides with both."""
    found: dict[str, list[np.ndarray]] = {"stroma": [], "tumour": []}
    step = SIDE_L0 // LAYOUT_PX
    for number in range(drawings):
        drawing = draw_slide(rng, GRID * SIDE_L0, ("acinar", "spindle")[number % 2], high_grade=0.5)
        for row, column in np.ndindex(GRID, GRID):
            layout = drawing.layout[row * step :, column * step :][:step, :step]
            square = drawing.image[row * SIDE_L0 :, column * SIDE_L0 :][:SIDE_L0, :SIDE_L0]
            if (layout == STROMA).all():
                found["stroma"].append(square)
            elif (layout >= LOW_GRADE).all():
                found["tumour"].append(square)
    return found


def compose(
    rng: np.random.Generator, squares: dict[str, list[np.ndarray]], focus: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return a disc of stroma, with a focus of tumour if `focus`, and the mask of the planted squares."""
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0, GRID / 3)
    row, column = GRID / 2 - 0.5 + distance * np.array([np.sin(angle), np.cos(angle)])
    planted = TISSUE & (np.hypot(ROW - row, COLUMN - column) < GRID * rng.uniform(0.13, 0.19)) & focus
    slide = np.full((GRID, SIDE_L0, GRID, SIDE_L0, 3), 242, np.uint8)
    for place in np.argwhere(TISSUE):
        kind = squares["tumour" if planted[tuple(place)] else "stroma"]
        slide[place[0], :, place[1]] = np.rot90(kind[rng.integers(len(kind))], rng.integers(4))
    return slide.reshape(GRID * SIDE_L0, GRID * SIDE_L0, 3), planted


@contextmanager
def viewing(case: Case) -> Iterator[str]:
    """Yield the address of a `longvit view` of the run, which ends with the context."""
    verb = ["view", str(case.run), "--explanations", str(case.explained), "--no-browser"]
    command = [sys.executable, "-c", "from longvit.cli.app import main; main()", *verb]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a page in the system's Chromium, without a window.

    Raises:
        RuntimeError: Chromium is not installed.
    """
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        raise RuntimeError("no Chromium is on the path (apt install chromium)")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path)
        yield browser.new_page(viewport=WINDOW)
        browser.close()


def look(page: Any, case: Case, address: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the heatmap's canvas at full opacity, RGBA, and the whole page at half opacity, RGB."""
    page.goto(f"{address}#{case.slide_id}")
    end = time.monotonic() + 20
    while not page.evaluate(READY):
        if time.monotonic() > end:
            raise RuntimeError("the page does not show the slide")
        time.sleep(0.05)
    page.locator("#opacity").fill("100")
    heat = Image.open(io.BytesIO(base64.b64decode(page.evaluate(CANVAS).partition(",")[2])))
    page.locator("#opacity").fill("50")
    page.wait_for_timeout(700)  # the slide fades in
    return np.asarray(heat.convert("RGBA")), np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def on_stage(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the mask of a square slide as shown on a stage (height, width): as large as possible, centred."""
    side = min(height, width)
    shown = np.zeros((height, width), bool)
    top, left = (height - side) // 2, (width - side) // 2
    shown[top : top + side, left : left + side] = cv2.resize(
        mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST
    )
    return shown


def heat_of(rgba: np.ndarray) -> np.ndarray:
    """Return each pixel's position on the colour map of signed scores, 0 to 1; NaN if the pixel is transparent."""
    colours = np.round(DIVERGING(np.linspace(0, 1, 256))[:, :3] * 255)
    pixels, place = np.unique(rgba.reshape(-1, 4), axis=0, return_inverse=True)
    nearest = np.abs(pixels[:, None, :3] - colours).sum(-1).argmin(1) / 255
    return np.where(pixels[:, 3] > 0, nearest, np.nan)[place].reshape(rgba.shape[:2])


def with_border(picture: np.ndarray, box: dict[str, float], mask: np.ndarray) -> np.ndarray:
    """Return the page with the border of the slide's mask drawn onto the stage, which is at `box`."""
    left, top, width, height = (round(box[side]) for side in ("x", "y", "width", "height"))
    shown = on_stage(mask, height, width).astype(np.uint8)
    lines, _ = cv2.findContours(shown, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    drawn = cv2.drawContours(picture.copy(), lines, -1, (29, 39, 51), 5)
    return cv2.drawContours(drawn, lines, -1, (255, 255, 255), 2)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "viewer.png")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        case = make_case(Path(folder))
        with viewing(case) as address, chromium() as page:
            _, picture = look(page, case, address)
            picture = with_border(picture, page.locator("#picture").bounding_box(), case.planted)
    Image.fromarray(picture).save(out, optimize=True)


if __name__ == "__main__":
    main()
