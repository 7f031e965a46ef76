"""Label and macro images, which show names and barcodes, get into no store, report or page."""

import re
from pathlib import Path

import cv2
import numpy as np
import openslide
import tifffile

from longvit.cli.app import run_command
from preprocessing.store.store import open_store

MAGENTA = np.array((255, 0, 255))


def with_label(path: Path, slide: Path) -> None:
    """The slide with a thumbnail, and with a label and a macro image that are magenta, as Aperio writes them."""
    about = "Aperio Image Library v11\n1024x1024 [0,0 1024x1024] (240x240) JPEG/RGB Q=95|AppMag = 20|MPP = 0.5"
    image = tifffile.imread(slide, key=0)
    magenta = np.full((300, 400, 3), MAGENTA, np.uint8)
    rgb = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, tile=(240, 240), compression="jpeg", description=about, **rgb)
        tiff.write(np.ascontiguousarray(image[::4, ::4]), rowsperstrip=16, compression="jpeg", description=about, **rgb)
        tiff.write(
            magenta, rowsperstrip=300, subfiletype=1, description="Aperio Image Library v11\nlabel 400x300", **rgb
        )
        tiff.write(
            magenta, rowsperstrip=300, subfiletype=9, description="Aperio Image Library v11\nmacro 400x300", **rgb
        )


def is_magenta(image: np.ndarray) -> bool:
    return bool((np.abs(image.astype(int) - MAGENTA).max(-1) < 60).any())


def test_a_label_that_says_who_it_is_stays_in_the_slide(save_slide, tmp_path):
    (tmp_path / "slides").mkdir()
    with_label(tmp_path / "slides" / "a.svs", save_slide(tmp_path / "plain.svs"))
    with openslide.OpenSlide(tmp_path / "slides" / "a.svs") as slide:
        associated = {name: np.asarray(image.convert("RGB")) for name, image in slide.associated_images.items()}
    assert is_magenta(associated["label"])
    assert is_magenta(associated["macro"])
    slides, stores = str(tmp_path / "slides"), str(tmp_path / "stores")
    assert run_command(["tile", "--slides", slides, "--out", stores, "--tile-px", "128"]) == 0
    page = ["view", stores, "--slides", slides, "--static", str(tmp_path / "page")]
    assert run_command(page) == 0
    store = open_store(tmp_path / "stores" / "a.zarr")
    assert not is_magenta(store.overview)
    assert not is_magenta(store.read_tiles(range(len(store))))
    pictures = [path for path in tmp_path.rglob("*") if path.suffix in (".jpg", ".png") and path.is_file()]
    assert len(pictures) > 5
    assert [path for path in pictures if is_magenta(cv2.imread(str(path))[..., ::-1])] == []
    assert re.search("a.svs|label|macro", (tmp_path / "page" / "data" / "0" / "slide.js").read_text()) is None
