"""Slides and stores small enough to make in every test session."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from preprocessing.frames import l0_from_rc
from preprocessing.jpeg.codec import Jpeg
from preprocessing.store.schema import Source, StoreAttributes
from preprocessing.store.store import open_store
from preprocessing.store.writer import finish_store, write_arrays

GLASS = (243, 242, 244)


def stained(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pink and violet texture with detail down to the pixel, RGB uint8."""
    rng = np.random.default_rng(seed)
    nuclei = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (0, 0), 2)
    nuclei = (nuclei - nuclei.mean()) / nuclei.std()
    image = np.where(nuclei[..., None] > 0.7, (110, 60, 140), (222, 150, 190)).astype(np.float32)
    return (image + rng.normal(0, 6, (height, width, 1))).clip(0, 255).astype(np.uint8)


def slide_image(width: int = 1280, height: int = 1024) -> np.ndarray:
    """Glass with one piece of tissue that covers x, y of [256, 1024) x [256, 768)."""
    image = np.full((height, width, 3), GLASS, np.uint8)
    image[256:768, 256:1024] = stained(512, 768)
    return image


def write_svs(path: Path, image: np.ndarray, mpp: float | None = 0.5) -> Path:
    """An Aperio-style pyramid with levels 1 and 1/4, as OpenSlide reads it; `mpp` None leaves the resolution out."""
    height, width = image.shape[:2]
    stated = "" if mpp is None else f"|MPP = {mpp}"
    head = f"Aperio Image Library\n{width}x{height} [0,0 {width}x{height}] (240x240) JPEG/RGB Q=95|AppMag = 20{stated}"
    options = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 95}, "metadata": None}
    small = cv2.resize(image, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, tile=(240, 240), description=head, **options)
        tiff.write(small, rowsperstrip=16, description="Aperio Image Library\nthumbnail -", **options)
        low = head.replace("JPEG/RGB", f"-> {width // 4}x{height // 4} JPEG/RGB")
        tiff.write(small, tile=(240, 240), description=low, **options)
    return path


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return slide_image()


@pytest.fixture(scope="session")
def svs(tmp_path_factory, image) -> Path:
    return write_svs(tmp_path_factory.mktemp("slides") / "slide.svs", image)


@pytest.fixture(scope="session")
def save_svs():
    return write_svs


@pytest.fixture(scope="session")
def tiles() -> np.ndarray:
    """Five different tiles, (5, 32, 32, 3)."""
    return np.stack([stained(32, 32, seed) for seed in range(5)])


@pytest.fixture
def make_store(tmp_path, tiles):
    """Write a store of the five tiles, two to a shard, on a 3 x 4 grid, and open it."""

    def make(name: str = "slide.zarr", **changes):
        side_l0, rc = 64.0, np.array([[0, 0], [0, 1], [1, 1], [2, 0], [2, 3]], np.int32)
        arrays = {"rc": rc, "xy_l0": l0_from_rc(rc, side_l0), "tissue": np.linspace(0.2, 1, 5, dtype=np.float32)}
        arrays |= {"overview": stained(12, 16), "overview_mask": np.eye(12, 16, dtype=np.uint8)}
        arrays |= {"piece": np.array([0, 0, 0, 1, 2], np.int32)}
        known = {"slide_id": "slide", "source": Source(name="slide.svs", size=1, sha256="0"), "vendor": "aperio"}
        known |= {"mpp": 0.5, "mpp_source": "metadata", "mpp_level0": 0.25, "size_l0": (256, 192), "tile_st": 32}
        known |= {"grid_shape": (3, 4), "side_l0": (side_l0, side_l0), "config": {}, "versions": {}}
        jpeg = Jpeg(level=90, subsampling="444")
        jpegs = ((i, (jpeg.encode_image(tile),)) for i, tile in enumerate(tiles))
        attributes = StoreAttributes(**known | changes)
        write_arrays(tmp_path / name, jpegs, arrays, 32, jpeg=jpeg, shard_tiles=2)
        finish_store(tmp_path / name, attributes)
        return open_store(tmp_path / name)

    return make


@pytest.fixture
def as_schema_1():
    """A function: make of a store one as version 0.1.1 wrote it; `checksums` False: as 0.1.0 did."""

    def change(path: Path, *, checksums: bool = True) -> None:
        for name in ("piece", "crc32c"):
            shutil.rmtree(path / name, ignore_errors=True)
        document = json.loads((path / "zarr.json").read_text())
        for key in ("arrays", "lattice", "bounds_l0"):
            del document["attributes"][key]
        document["attributes"]["schema_version"] = 1
        (path / "zarr.json").write_text(json.dumps(document))
        if checksums:
            return
        for name in ("rc", "xy_l0", "tissue", "overview", "overview_mask", "tiles"):
            document = json.loads((path / name / "zarr.json").read_text())
            (document["codecs"][0]["configuration"] if name == "tiles" else document)["codecs"].pop()
            (path / name / "zarr.json").write_text(json.dumps(document))
        for name in ("rc", "xy_l0", "tissue", "overview", "overview_mask"):
            (chunk,) = (file for file in (path / name / "c").rglob("*") if file.is_file())
            chunk.write_bytes(chunk.read_bytes()[:-4])

    return change
