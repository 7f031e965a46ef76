"""Law: cores of a tissue microarray are numbered as one reads, and can be slides of different patients."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from longvit.cohort.checks import audit_splits
from longvit.config import ExplainConfig, FinetuneConfig, FinetuneOptimiserConfig, PredictConfig, ViewConfig
from longvit.explanation.explain import run as explain
from longvit.finetuning.finetune import run as finetune
from longvit.prediction.predict import run as predict
from longvit.tokens.joined import GAP
from longvit.tokens.sequences import sequence_pieces
from longvit.viewer.find import find
from longvit.viewer.scene import Scene
from preprocessing.config import TileConfig
from preprocessing.errors import CohortError, ConfigError, StoreError
from preprocessing.store.store import open_store, problems
from preprocessing.tile import run as tile

ROWS, COLUMNS, STEP, RADIUS = 3, 4, 512, 160
TORN, MISSING = (1, 1), (1, 2)
CORES = [place for place in np.ndindex(ROWS, COLUMNS) if place != MISSING]


def microarray(path: Path) -> Path:
    """A slide of 11 cores in two dyes, one of them torn, in a lattice that is not quite straight."""
    rng = np.random.default_rng(0)
    image = np.full((ROWS * STEP, COLUMNS * STEP, 3), 243, np.uint8)
    y, x = np.mgrid[: 2 * RADIUS, : 2 * RADIUS] - RADIUS
    for number, (row, column) in enumerate(CORES):
        core = y**2 + x**2 < RADIUS**2
        if (row, column) == TORN:
            core &= np.abs(x - y // 3) > 20  # 20 um
        noise = cv2.GaussianBlur(rng.normal(0, 60, (*core.shape, 1)), (0, 0), 1)[..., None]
        dye = ((222, 150, 190), (150, 110, 200))[number % 2]
        top, left = (i * STEP + 90 + int(rng.integers(-35, 35)) for i in (row, column))
        part = image[top : top + 2 * RADIUS, left : left + 2 * RADIUS]
        part[core] = (dye + noise).clip(0, 255).astype(np.uint8)[core]
    description = (
        f"Aperio Image Library\n{image.shape[1]}x{image.shape[0]} (256x256) JPEG/RGB Q=95|AppMag = 20|MPP = 0.5"
    )
    options = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 95}, "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, tile=(256, 256), description=description, **options)
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tma")
    slides = microarray(root / "TMA.svs")
    tile(TileConfig(slides=slides, out=root / "stores", tile_px=64, pieces=True, workers=1))
    return root / "stores"


@pytest.fixture(scope="module")
def tables(stores) -> dict[str, Path]:
    """Patients A to J; A has the first and the last core."""
    cases = [*"ABCDEFGHIJ", "A"]
    slides = pd.DataFrame({"case_id": cases, "slide_id": "TMA.svs", "piece": range(11)})
    labels = pd.DataFrame({"case_id": list("ABCDEFGHIJ"), "oncotree_code": ["LUAD", "LUSC"] * 5})
    paths = {name: stores.parent / f"{name}.csv" for name in ("slides", "labels", "both")}
    slides.to_csv(paths["slides"], index=False)
    labels.to_csv(paths["labels"], index=False)
    slides.merge(labels).to_csv(paths["both"], index=False)
    (stores.parent / "splits").mkdir()
    split = {"train": list("CDEFGH"), "val": list("IJ"), "test": list("AB")}
    split = pd.DataFrame({part: pd.Series(names) for part, names in split.items()})
    split.to_csv(stores.parent / "splits" / "splits_0.csv")
    return paths | {"splits": stores.parent / "splits"}


def settings(stores, tables, encoder, out, **more) -> FinetuneConfig:
    given = {"stores": stores, "table": tables["labels"], "slide_table": tables["slides"], "splits": tables["splits"]}
    given |= {"optimiser": FinetuneOptimiserConfig(epochs=1, learning_rate=1e-2), "device": "cpu", "loader_workers": 0}
    return FinetuneConfig(**given | {"out": out, "encoder": encoder} | more)


def test_cores_are_numbered_as_one_reads_and_listed(stores):
    store = open_store(stores / "TMA.zarr")
    assert problems(store.path) == []
    with (stores / "pieces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["slide_id"], row["piece"]) for row in rows] == [("TMA", str(number)) for number in range(11)]
    for row, (down, across) in zip(rows, CORES, strict=True):
        x, y, width, height = (int(row[name]) for name in ("x_l0", "y_l0", "width_l0", "height_l0"))
        assert (x + width / 2) // STEP == across
        assert (y + height / 2) // STEP == down
        assert int(row["n_tiles"]) == (store.piece == int(row["piece"])).sum() > 10
    picture = cv2.imread(str(stores / "tile_report" / "TMA.jpg"))
    assert (picture.min(axis=-1) < 60).sum() > 50, "the numbers are black"


def test_without_pieces_the_setting_of_older_stores_is_meant(stores, tmp_path):
    slides = stores.parent / "TMA.svs"
    config = TileConfig(slides=slides, out=tmp_path, tile_px=64, workers=1)
    tile(config)
    document = tmp_path / "TMA.zarr" / "zarr.json"
    content = json.loads(document.read_text())
    for name in ("pieces", "piece_gap_um"):
        del content["attributes"]["config"][name]
    document.write_text(json.dumps(content))
    assert tile(config.model_copy(update={"piece_gap_um": 10.0})).rows[0].status == "skipped"
    assert not (tmp_path / "pieces.csv").exists()
    with pytest.raises(ConfigError, match=r"pieces \(False there, True now\)"):
        tile(config.model_copy(update={"pieces": True}))
    with pytest.raises(ConfigError, match=r"piece_gap_um \(50.0 there, 10.0 now\)"):
        tile(TileConfig(slides=slides, out=stores, tile_px=64, pieces=True, piece_gap_um=10.0))


def test_patients_are_pieces_from_training_to_a_picture(stores, tables, tiny_encoder, tmp_path):
    config = settings(stores, tables, tiny_encoder, tmp_path / "run")
    table = pd.read_csv(finetune(config)).query("split == 'test'").reset_index(drop=True)
    assert table[["patient_id", "slide_id"]].to_numpy().tolist() == [["A", "TMA~0"], ["A", "TMA~10"], ["B", "TMA~1"]]
    new = PredictConfig(run=config.out, stores=stores, table=tables["slides"], out=tmp_path / "new", device="cpu")
    with pytest.raises(CohortError, match=r"trained or selected on 8 of 10 patients: C, D, E"):
        predict(new)
    whole = new.model_copy(update={"table": None})
    with pytest.raises(CohortError, match=r"trained or selected on 1 of 1 patients: TMA"):
        predict(whole)
    held_out = tmp_path / "held_out.csv"
    pd.read_csv(tables["slides"]).query("case_id in ['A', 'B']").to_csv(held_out, index=False)
    predicted = pd.read_csv(predict(new.model_copy(update={"table": held_out})).table)
    assert predicted["slide_id"].tolist() == ["TMA~0", "TMA~10", "TMA~1"]
    np.testing.assert_allclose(predicted["p_LUAD"], table["p_LUAD"], rtol=1e-4)
    explained = explain(
        ExplainConfig(model=config.out / "fold_0" / "model.safetensors", stores=stores, out=tmp_path / "why",
                      methods=("received",), pieces=True, device="cpu")
    )  # fmt: skip
    assert sorted(explained.folders) == sorted(f"TMA~{number}" for number in range(11))
    document = json.loads((tmp_path / "why" / "TMA~10" / "explanation.json").read_text())
    assert document["prediction"]["p_LUAD"] == pytest.approx(table["p_LUAD"][1], rel=1e-4)
    scores = pd.read_csv(tmp_path / "why" / "TMA~10" / "scores.csv")
    assert set(scores["piece"]) == {10}
    assert scores["y_l0"].min() > 2 * STEP, "coordinates are those of the whole slide"
    features = json.loads((tmp_path / "why" / "TMA~10" / "received.geojson").read_text())["features"]
    assert {feature["properties"]["measurements"]["Piece"] for feature in features} == {10}
    shown = find(ViewConfig(source=tmp_path / "why", stores=stores))
    assert list(shown.stores) == sorted(explained.folders)
    assert Scene.open("data/0/", "TMA~10", shown, 256).document()["tiles"]["count"] == len(features)


def test_pieces_of_a_patient_are_one_sequence_with_a_gap_in_early_fusion(stores, tables, tiny_encoder, tmp_path):
    config = settings(stores, tables, tiny_encoder, tmp_path / "run", fusion="early")
    table = pd.read_csv(finetune(config)).query("split == 'test'")
    assert table["slide_id"].tolist() == ["TMA~0;TMA~10", "TMA~1"]
    paths = {f"TMA~{number}": stores / f"TMA.zarr~{number}" for number in (0, 10)}
    joined = sequence_pieces(paths, tiny_encoder.input, ("TMA~0", "TMA~10"))
    first = 16 * len(open_store(paths["TMA~0"]))
    rows = joined.rc_in_sequence()[:, 0]
    assert rows[first:].min() - rows[:first].max() > GAP


def test_the_audit_sees_pieces_as_slides_and_no_copies(stores, tables, tiny_encoder, tmp_path):
    for more in ({}, {"table": tables["both"], "slide_table": None}):
        audited = audit_splits(settings(stores, tables, tiny_encoder, tmp_path, **more))
        audited.refuse()
        assert audited.cohort.slides["A"] == ["TMA~0", "TMA~10"]
        assert not {"duplicate", "no-store", "unlabelled-stores"} & {one.category for one in audited.findings}


def test_a_piece_that_is_not_there_is_named(stores, tables, tiny_encoder, tmp_path, edited):
    table = edited(tables["slides"], lambda rows: rows.replace({"piece": {"10": "11"}}))
    with pytest.raises(StoreError, match=r"no piece 11 with tiles; it has 11 pieces, 0 to 10"):
        audit_splits(settings(stores, tables, tiny_encoder, tmp_path, slide_table=table))
