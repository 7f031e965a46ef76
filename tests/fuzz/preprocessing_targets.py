"""Fuzz targets of `preprocessing`: each prepares samples in a folder and returns the function that runs one case."""

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    VLWholeSlideMicroscopyImageStorage,
)

from preprocessing.config import TileConfig
from preprocessing.errors import SlideError
from preprocessing.frames import l0_from_rc
from preprocessing.jpeg.codec import Jpeg
from preprocessing.store.features import add_embeddings
from preprocessing.store.schema import Source, StoreAttributes
from preprocessing.store.store import find_stores, open_store, problems
from preprocessing.store.writer import finish_store, write_arrays
from preprocessing.tile import tile_or_skip
from preprocessing.tiling.manifest import SlideEntry, read_manifest
from preprocessing.tissue.geojson import read_geojson, write_geojson
from preprocessing.tissue.masks import read_mask

sys.path.insert(0, str(Path(__file__).parent))
from mutations import damaged, damaged_json, damaged_png

Case = Callable[[random.Random], None]
SIDE = 192
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "slides"


def picture(side: int = SIDE) -> np.ndarray:
    """Glass with tissue in its middle, RGB."""
    rng = np.random.default_rng(0)
    image = np.full((side, side, 3), 243, np.uint8)
    tissue = np.where(rng.random((side // 2, side // 2, 1)) > 0.7, (110, 60, 140), (222, 150, 190))
    image[side // 4 : -side // 4, side // 4 : -side // 4] = tissue
    return image


def tile_files(folder: Path, samples: dict[str, bytes], places: dict[str, list[int]]) -> Case:
    """Tile a damaged slide; whatever is wrong with it must be in its row."""
    scratch = folder / "scratch"

    def case(rng: random.Random) -> None:
        name = rng.choice(sorted(samples))
        tile(rng, name, damaged(rng, samples[name], places.get(name)))

    def tile(rng: random.Random, name: str, data: bytes) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        slide = scratch / name
        slide.write_bytes(data)
        config = TileConfig(
            slides=slide, out=scratch / "out", mpp=0.5, tile_px=32, min_tissue=0.05, mpp_if_missing=0.5,
            tissue={"min_area_um2": 10.0, "reject_blur": False}, tolerate_bad_tiles=rng.choice((0, 3)),
        )  # fmt: skip
        config.out.mkdir()
        row = tile_or_skip(SlideEntry(slide.stem, slide), config)
        if row.status == "failed":
            assert "fault of the program" not in row.fix, row.reason
            assert "not enough memory" not in row.reason, row.reason
            raise SlideError(row.reason, where=slide, fix=row.fix)
        assert problems(config.out / f"{slide.stem}.zarr") == []

    for name in samples.keys() & places.keys():
        tile(random.Random(0), name, samples[name])  # whole, it is read
    return case


def tiff_places(path: Path) -> list[int]:
    """Bytes of the directories of a TIFF, where its sizes and offsets are."""
    with tifffile.TiffFile(path) as tiff:
        entries = [tag.offset for page in tiff.pages for tag in page.tags]
    return [entry + k for entry in entries for k in range(20)] + list(range(16))


def write_tiffs(folder: Path, suffix: str, **kinds: dict) -> tuple[dict[str, bytes], dict[str, list[int]]]:
    folder.mkdir(parents=True, exist_ok=True)
    samples, places = {}, {}
    for name, options in kinds.items():
        path = folder / f"{name}{suffix}"
        small = cv2.resize(picture(), (SIDE // 4, SIDE // 4), interpolation=cv2.INTER_AREA)
        bottom = {"resolution": (20_000, 20_000), "resolutionunit": 3, "metadata": None, "photometric": "rgb"}
        with tifffile.TiffWriter(path, **options.pop("file", {})) as tiff:
            head = bottom | {"tile": (64, 64)} | options
            tiff.write(picture(), **head)
            tiff.write(small, **bottom | {"tile": (64, 64), "subfiletype": 1} | {k: head[k] for k in head if k in (
                "compression", "compressionargs", "predictor")})  # fmt: skip
        samples[path.name], places[path.name] = path.read_bytes(), tiff_places(path)
    return samples, places


JPEG = {"compression": "jpeg", "compressionargs": {"level": 90}}


def tiff(folder: Path) -> Case:
    kinds = {
        "jpeg": {**JPEG},
        "deflate": {"compression": "zlib", "predictor": True},
        "lzw": {"compression": "lzw"},
        "plain": {},
        "big": {**JPEG, "file": {"bigtiff": True}},
        "strips": {"tile": None, "rowsperstrip": 16},
    }
    return tile_files(folder, *write_tiffs(folder / "samples", ".tif", **kinds))


def svs(folder: Path) -> Case:
    head = f"Aperio Image Library\n{SIDE}x{SIDE} [0,0 {SIDE}x{SIDE}] (64x64) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"
    kinds = {"aperio": {**JPEG, "description": head}, "big": {**JPEG, "description": head, "file": {"bigtiff": True}}}
    samples, places = write_tiffs(folder / "samples", ".svs", **kinds)
    for path in SHARED.glob("small.svs"):
        samples[path.name] = path.read_bytes()
    return tile_files(folder, samples, places)


def ome(folder: Path) -> Case:
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    path = folder / "samples" / "a.ome.tif"
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(picture(), subifds=1, metadata=metadata, **options)
        tiff.write(picture(SIDE // 2), subfiletype=1, **options)
    data = path.read_bytes()
    start = data.index(b"<?xml")
    text = list(range(start, data.index(b"</OME>") + 6))
    return tile_files(folder, {path.name: data}, {path.name: text * 2 + tiff_places(path)})


def dicom(folder: Path) -> Case:
    jpeg = Jpeg(level=90, subsampling="420")
    path = write_dicom(folder / "samples" / "a.dcm", jpeg.encode_image, JPEGBaseline8Bit, "YBR_FULL_422")
    samples = {file.name: file.read_bytes() for file in (path, *SHARED.glob("boxes_*.dcm"))}
    return tile_files(folder, samples, {path.name: list(range(128, 1200))})


def lossless_dicom(folder: Path) -> Case:
    """Frames that OpenSlide does not decode, with positions."""
    kinds = {
        "jls": (imagecodecs.jpegls_encode, JPEGLSLossless),
        "htj2k": (lambda tile: imagecodecs.htj2k_encode(tile, reversible=True), HTJ2KLossless),
        "j2k": (j2k_in_ycbcr, JPEG2000Lossless),
        "rle": (rle, RLELossless),
    }
    samples, places = {}, {}
    for name, (encode, syntax) in kinds.items():
        path = write_dicom(folder / "samples" / f"{name}.dcm", encode, syntax, "YBR_FULL" if name == "j2k" else "RGB")
        samples[path.name] = data = path.read_bytes()
        frame = data.index(b"\xfe\xff\x00\xe0") + 8
        places[path.name] = list(range(128, 1200)) + list(range(frame, frame + 300))
    return tile_files(folder, samples, places)


def j2k_in_ycbcr(tile: np.ndarray) -> bytes:
    ycbcr = np.ascontiguousarray(cv2.cvtColor(tile, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]])
    return imagecodecs.jpeg2k_encode(ycbcr, codecformat="j2k", mct=False)


def rle(tile: np.ndarray) -> bytes:
    facts = {"rows": len(tile), "columns": len(tile), "samples_per_pixel": 3, "bits_allocated": 8, "bits_stored": 8}
    facts |= {"pixel_representation": 0, "number_of_frames": 1, "planar_configuration": 0}
    return RLELosslessEncoder.encode(tile.tobytes(), photometric_interpretation="RGB", **facts)


def write_dicom(path: Path, encode: Callable[[np.ndarray], bytes], syntax: UID, colours: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tiles = [picture()[y : y + 64, x : x + 64] for y in range(0, SIDE, 64) for x in range(0, SIDE, 64)]
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.0005, 0.0005]
    shared.PixelMeasuresSequence = [measures]
    file = FileDataset(path, {}, preamble=bytes(128))
    facts = {
        "SOPClassUID": VLWholeSlideMicroscopyImageStorage, "SOPInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2",
        "ImageType": ["DERIVED", "PRIMARY", "VOLUME", "NONE"], "DimensionOrganizationType": "TILED_FULL",
        "PhotometricInterpretation": colours, "PlanarConfiguration": 0, "SamplesPerPixel": 3, "BitsAllocated": 8,
        "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "NumberOfFrames": len(tiles),
        "Columns": 64, "Rows": 64,
        "TotalPixelMatrixColumns": SIDE, "TotalPixelMatrixRows": SIDE, "SharedFunctionalGroupsSequence": [shared],
        "PixelData": encapsulate([encode(np.ascontiguousarray(tile)) for tile in tiles], has_bot=False),
    }  # fmt: skip
    for name, value in facts.items():
        setattr(file, name, value)
    places = [(x, y) for y in range(0, SIDE, 64) for x in range(0, SIDE, 64)]
    if syntax != JPEGBaseline8Bit:
        file.DimensionOrganizationType = "TILED_SPARSE"
        file.PerFrameFunctionalGroupsSequence = [dicom_position(x, y) for x, y in places]
    file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.save_as(path, enforce_file_format=True)
    return path


def dicom_position(x: int, y: int) -> Dataset:
    place, item = Dataset(), Dataset()
    place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix = x + 1, y + 1
    item.PlanePositionSlideSequence = [place]
    return item


def store(folder: Path) -> Case:
    path, kept = folder / "slide.zarr", folder / "kept"
    tiles = np.stack([picture(64)[i : i + 32, i : i + 32] for i in range(0, 30, 6)])
    rc = np.array([[0, 0], [0, 1], [1, 1], [2, 0], [2, 3]], np.int32)
    arrays = {"rc": rc, "xy_l0": l0_from_rc(rc, 64.0), "tissue": np.linspace(0.2, 1, 5, dtype=np.float32)}
    arrays |= {"overview": picture(128)[:96], "overview_mask": np.eye(96, 128, dtype=np.uint8)}
    arrays |= {"piece": np.array([0, 0, 0, 1, 2], np.int32)}
    jpeg = Jpeg(level=90, subsampling="444")
    shutil.rmtree(path, ignore_errors=True)
    write_arrays(
        path, ((i, (jpeg.encode_image(t),)) for i, t in enumerate(tiles)), arrays, 32, jpeg=jpeg, shard_tiles=2
    )
    facts = {"slide_id": "slide", "source": Source(name="slide.svs", size=1, sha256="0"), "vendor": "aperio"}
    facts |= {"mpp": 0.5, "mpp_source": "metadata", "mpp_level0": 0.25, "size_l0": (256, 192), "tile_st": 32}
    facts |= {"grid_shape": (3, 4), "side_l0": (64.0, 64.0), "config": {"a": 1}, "versions": {"longvit": "0"}}
    finish_store(path, StoreAttributes(**facts))
    add_embeddings(path, "uni", np.random.default_rng(0).random((5, 8), np.float32), {"weights": "w"})
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(path, kept)
    files = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    true = read_all(path)

    def case(rng: random.Random) -> None:
        spoiled = rng.sample(files, rng.choice((1, 1, 2)))
        try:
            for name in spoiled:
                data = (kept / name).read_bytes()
                change = damaged_json if name.name == "zarr.json" and rng.random() < 0.7 else damaged
                (path / name).write_bytes(change(rng, data))
            find_stores(folder)
            found = problems(path)
            now = read_all(path)
            same = all(np.array_equal(now[name], true[name]) for name in true)
            assert same, f"other numbers were read from {[str(name) for name in spoiled]}"
            assert found == []
        finally:
            for name in spoiled:
                shutil.copyfile(kept / name, path / name)

    return case


def read_all(path: Path) -> dict[str, np.ndarray]:
    opened = open_store(path)
    names = ("rc", "xy_l0", "tissue", "overview", "overview_mask", "piece", "crc32c")
    arrays = {name: getattr(opened, name) for name in names} | {"uni": opened.embeddings("uni")}
    return arrays | {"tiles": opened.read_tiles(range(len(opened))), "region": opened.read_region((0, 0), (128, 96))}


def geojson(folder: Path) -> Case:
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (40, 30), 20, 1, -1)
    cv2.circle(mask, (40, 30), 8, 0, -1)
    cv2.circle(mask, (70, 50), 5, 2, -1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "slide.geojson"
    write_geojson(path, mask, (8000, 6000))
    ring = [[0, 0], [4000, 0], [4000.5, 3000], [0, 3000], [0, 0]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": None}
    samples = [path.read_bytes(), json.dumps([feature, feature]).encode(), json.dumps(feature).encode()]

    def case(rng: random.Random) -> None:
        data = rng.choice(samples)
        path.write_bytes((damaged_json if rng.random() < 0.7 else damaged)(rng, data))
        read_geojson(path, (8000, 6000), rng.choice(((60, 80), (3000, 4000))))

    return case


def png(folder: Path) -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "slide.png"
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (40, 30), 20, 1, -1)
    images = [mask, mask.astype(np.uint16) * 300, np.stack([mask * 90] * 3, 2), np.stack([mask * 90] * 4, 2)]
    samples = [cv2.imencode(".png", image)[1].tobytes() for image in images]
    palette = Image.fromarray(mask, "P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(path)
    samples.append(path.read_bytes())
    Image.fromarray(mask * 255).convert("1").save(path)
    samples.append(path.read_bytes())

    def case(rng: random.Random) -> None:
        path.write_bytes(damaged_png(rng, rng.choice(samples)))
        read_mask(path, (8000, 6000), (60, 80))

    return case


def manifest(folder: Path) -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "slides.csv"
    text = '\ufeffslide_id,path,mpp\na,slides/a.svs,0.5\nb,slides/b.svs,\n"c, d","/x/c.svs",0.25\n'
    samples = [text.encode(), text.replace(",", ";").encode(), text.replace(",", "\t").encode()]

    def case(rng: random.Random) -> None:
        path.write_bytes(damaged(rng, rng.choice(samples)))
        for entry in read_manifest(path):
            assert "/" not in entry.slide_id
            row = tile_or_skip(entry, TileConfig(slides=path, out=folder / "out"))
            assert (row.status, "fault of the program" in row.fix) == ("failed", False), row

    return case
