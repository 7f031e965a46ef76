"""A slide of 100,000 x 100,000 pixels in under a minute: a few dozen JPEG tiles, written again and again.

    python tests/benchmarks/huge_slide.py huge.svs --texture ../shared/data/slides/CMU-1-Small-Region.svs

What a tile of level 0 shows, glass or one of the textures, is drawn for the whole slide first; the tiles of the levels
4 and 16 are mosaics of the same textures made small, so the levels agree to the pixel. The file is an Aperio-like
BigTIFF with whole JPEGs (no shared tables).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

TILE = 256
DOWNSAMPLES = (1, 4, 16)
QUALITY = 80
GLASS = (243, 242, 244)
GLASS_TEXTURES = 8
Textures = npt.NDArray[np.uint8]  # (k, TILE, TILE, 3); the first GLASS_TEXTURES are glass


def make_textures(path: Path, rng: np.random.Generator) -> Textures:
    """Return tiles of glass with camera noise, then all tiles of a real slide (level 0) that are full of tissue."""
    noise = rng.normal(0, 1.6, (GLASS_TEXTURES, TILE, TILE, 1))
    glass = (GLASS + noise).clip(0, 255).astype(np.uint8)
    image = tifffile.imread(path, key=0)
    rows, columns = image.shape[0] // TILE, image.shape[1] // TILE
    cut = image[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    cut = cut.reshape(-1, TILE, TILE, 3)
    pale = (cut.min(axis=-1) > 215).mean(axis=(1, 2))
    return np.concatenate([glass, cut[pale < 0.05]])


def draw_layout(rows: int, columns: int, share: float, textures: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return the texture of every tile of level 0 (rows, columns): blobs of tissue that cover `share` of the slide."""
    coarse = rng.standard_normal((9, 9)).astype(np.float32)
    field = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    tissue = field > np.quantile(field, 1 - share)
    glass_of = rng.integers(0, GLASS_TEXTURES, field.shape)
    tissue_of = rng.integers(GLASS_TEXTURES, textures, field.shape)
    return np.where(tissue, tissue_of, glass_of)


def encode(tile: npt.NDArray[np.uint8]) -> bytes:
    """Return a whole JPEG, YCbCr 4:2:0, of a tile (TILE, TILE, 3)."""
    return bytes(
        imagecodecs.jpeg8_encode(tile, level=QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling="420")
    )


def encoded_level(textures: Textures, layout: npt.NDArray[np.intp], downsample: int) -> Iterator[bytes]:
    """Yield the JPEG tiles of a level, row by row: mosaics of `downsample` x `downsample` reduced textures."""
    if downsample == 1:
        ready = [encode(texture) for texture in textures]
        yield from (ready[kind] for kind in layout.flat)
        return
    side = TILE // downsample
    small = np.stack([cv2.resize(texture, (side, side), interpolation=cv2.INTER_AREA) for texture in textures])
    rows, columns = layout.shape
    whole = np.pad(layout, ((0, -rows % downsample), (0, -columns % downsample)))  # beyond the edge: glass
    for row in range(0, rows, downsample):
        for column in range(0, columns, downsample):
            mosaic = small[whole[row : row + downsample, column : column + downsample]]
            yield encode(mosaic.swapaxes(1, 2).reshape(TILE, TILE, 3))


def write_huge_slide(path: Path, texture: Path, side: int, mpp: float, share: float) -> None:
    """Write the slide.

    Args:
        path: File to write, `.svs`.
        texture: A slide whose level 0 fits into memory and holds tissue.
        side: Width and height of level 0, pixels.
        mpp: Micrometres per pixel of level 0, as the file states them.
        share: Share of the slide that is tissue, 0 to 1.
    """
    rng = np.random.default_rng(0)
    textures = make_textures(texture, rng)
    tiles = -(-side // TILE)
    layout = draw_layout(tiles, tiles, share, len(textures), rng)
    options = {"dtype": "uint8", "tile": (TILE, TILE), "photometric": "ycbcr", "subsampling": (2, 2)}
    options |= {"compression": "jpeg", "metadata": None, "software": None}
    head = f"Aperio Image Library v12.0.0 \r\n{side}x{side}"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for downsample in DOWNSAMPLES:
            own = side // downsample
            grid = f" [0,0 {side}x{side}] ({TILE}x{TILE})" + (f" -> {own}x{own}" if downsample > 1 else "")
            description = f"{head}{grid} JPEG/YCC Q={QUALITY}|AppMag = {round(10 / mpp)}|MPP = {mpp}"
            level = encoded_level(textures, layout, downsample)
            tiff.write(level, shape=(own, own, 3), description=description, **options)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--texture", type=Path, required=True, help="a slide whose level 0 fits into memory")
    parser.add_argument("--side", type=int, default=100_000, help="width and height, pixels")
    parser.add_argument("--mpp", type=float, default=0.25, help="micrometres per pixel")
    parser.add_argument("--share", type=float, default=0.3, help="share of the slide that is tissue")
    a = parser.parse_args()
    write_huge_slide(a.out, a.texture, a.side, a.mpp, a.share)


if __name__ == "__main__":
    main()
