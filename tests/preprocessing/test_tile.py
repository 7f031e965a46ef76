import csv
import json
import os
import shutil
import time
from concurrent.futures.process import BrokenProcessPool
from hashlib import md5
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import preprocessing.tile
from preprocessing.config import TileConfig, TissueConfig
from preprocessing.errors import CohortError, ConfigError
from preprocessing.store.features import add_embeddings
from preprocessing.store.store import open_store, problems
from preprocessing.tile import _rows_once, describe_failure, run
from preprocessing.tiling.manifest import SlideEntry
from preprocessing.tiling.resume import refuse_other_settings

SLIDES = Path(__file__).parents[2] / ".." / "shared" / "data" / "slides"


@pytest.fixture
def cohort(tmp_path, svs):
    """A folder with one good slide and two that are none."""
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(svs, folder / "good.svs")
    (folder / "empty.svs").write_bytes(b"")
    (folder / "text.tiff").write_text("no slide")
    return folder


def rows(report):
    return {row.slide_id: row for row in report.rows}


def tile(folder, **settings):
    return run(TileConfig(slides=folder, **{"out": folder.parent / "out", "workers": 1} | settings))


def test_a_bad_slide_is_named_and_the_others_go_on(cohort):
    report = tile(cohort)
    assert {name: row.status for name, row in rows(report).items()} == {
        "empty": "failed",
        "good": "done",
        "text": "failed",
    }
    assert rows(report)["empty"].reason == "the file is empty"
    assert all(row.fix for row in report.rows if row.status == "failed")
    assert report.exit_code == 1
    assert problems(cohort.parent / "out" / "good.zarr") == []
    assert {path.name for path in (cohort.parent / "out").iterdir()} == {
        "good.zarr",
        "tile_report",
        "tile_report.csv",
        "tile_report.html",
    }


def test_processes_give_what_one_process_gives(cohort):
    def named(report):
        return [(row.slide_id, row.status, row.reason, row.n_tiles) for row in report.rows]

    alone = tile(cohort)
    together = tile(cohort, workers=2, overwrite=True)
    assert [row[:2] for row in named(alone)] == [row[:2] for row in named(together)]
    assert rows(together)["good"].n_tiles == rows(alone)["good"].n_tiles == 6


def test_a_finished_store_is_skipped_untouched(cohort):
    tile(cohort)
    before = os.stat(cohort.parent / "out" / "good.zarr" / "zarr.json").st_mtime_ns
    again = rows(tile(cohort))["good"]
    assert (again.status, again.n_tiles, again.mpp, again.mpp_source) == ("skipped", 6, 0.5, "metadata")
    assert os.stat(cohort.parent / "out" / "good.zarr" / "zarr.json").st_mtime_ns == before


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"mpp": 1.0}, r"mpp \(0.5 there, 1.0 now\)"),
        ({"tile_px": 224, "jpeg_quality": 80}, r"jpeg_quality \(90 there, 80 now\), tile_px \(256 there, 224 now\)"),
        ({"tissue": TissueConfig(mask_um=4.0)}, r"tissue.mask_um \(8.0 there, 4.0 now\)"),
    ],
)
def test_stores_of_other_settings_are_replaced_only_when_asked_and_the_features_counted(
    cohort, settings, named, capsys
):
    tile(cohort)
    store = cohort.parent / "out" / "good.zarr"
    for encoder in ("resnet", "uni"):
        add_embeddings(store, encoder, np.zeros((6, 2), np.float32), {})
    before = (store / "zarr.json").stat().st_mtime_ns
    with pytest.raises(
        ConfigError, match=f"(?m)1 store with 2 sets of features in this folder .* settings: {named}$"
    ) as error:
        tile(cohort, **settings)
    assert "--overwrite" in error.value.fix
    assert (store / "zarr.json").stat().st_mtime_ns == before, "refused before any slide was read"
    capsys.readouterr()
    report = tile(cohort, overwrite=True, **settings)
    assert capsys.readouterr().err == "replacing 1 store with 2 sets of features\n"
    assert (rows(report)["good"].status, rows(report)["good"].lost) == ("done", ("resnet", "uni"))
    assert report.summary.splitlines()[1:] == [
        "tiled again: 1 (--overwrite was given); 2 sets of features lost with the old stores"
    ]
    assert "Lost features of the old store: resnet, uni" in report.page_path.read_text()
    assert "tiled again" not in tile(cohort, **settings).summary


def test_stores_of_another_schema_are_refused_and_one_such_store_is_enough(cohort):
    (cohort / "text.tiff").unlink()
    (cohort / "empty.svs").unlink()
    shutil.copy(cohort / "good.svs", cohort / "more.svs")
    tile(cohort)
    document = cohort.parent / "out" / "more.zarr" / "zarr.json"
    text = json.loads(document.read_text())
    document.write_text(json.dumps(text | {"attributes": text["attributes"] | {"schema_version": 3}}))
    with pytest.raises(ConfigError, match=r"1 store in this folder .* schema version \(another there, 2 now\)"):
        tile(cohort)
    assert [row.status for row in tile(cohort, overwrite=True).rows] == ["done", "done"]


def test_a_finished_store_of_schema_1_is_done(cohort, as_schema_1):
    first = {row.slide_id: row for row in tile(cohort).rows}["good"]
    path = cohort.parent / "out" / "good.zarr"
    as_schema_1(path)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    again = {row.slide_id: row for row in tile(cohort).rows}["good"]
    assert (again.status, again.reason, again.n_tiles) == ("skipped", "complete", first.n_tiles)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    assert open_store(path).attributes["schema_version"] == 1


def test_a_thousand_stores_are_compared_in_a_moment(cohort):
    tile(cohort)
    entry, config = SlideEntry("good", cohort / "good.svs"), TileConfig(slides=cohort, out=cohort.parent / "out")
    start = time.process_time()
    assert refuse_other_settings([entry] * 1000, config) == ""
    assert time.process_time() - start < 2, "0.1 s on a quiet machine"


def test_settings_that_do_not_change_a_store_do_not_tile_again(cohort):
    tile(cohort)
    assert rows(tile(cohort, mpp_if_missing=0.25, workers=2))["good"].status == "skipped"


def test_a_slide_that_changed_is_tiled_again(cohort):
    tile(cohort)
    with (cohort / "good.svs").open("ab") as file:
        file.write(b"\0")
    add_embeddings(cohort.parent / "out" / "good.zarr", "uni", np.zeros((6, 2), np.float32), {})
    report = tile(cohort)
    assert rows(report)["good"].reason == "the slide has changed"
    assert report.summary.endswith("tiled again: 1 (the slide has changed); 1 set of features lost with the old stores")


def test_a_store_that_is_damaged_or_unfinished_is_tiled_again(cohort):
    tile(cohort)
    document = cohort.parent / "out" / "good.zarr" / "zarr.json"
    text = json.loads(document.read_text())
    text["attributes"]["complete"] = False
    document.write_text(json.dumps(text))
    assert "unfinished" in rows(tile(cohort))["good"].reason
    for damage in ("zarr.json", "tissue/zarr.json", "tiles/c/0/0/0/0"):
        (document.parent / damage).unlink()
        report = tile(cohort)
        assert "damaged" in rows(report)["good"].reason
        assert report.summary.endswith("tiled again: 1 (its store was damaged)")
        assert problems(document.parent) == []


def test_a_store_that_cannot_be_read_or_was_renamed_is_not_replaced(cohort):
    tile(cohort)
    out = cohort.parent / "out"
    shutil.copy(cohort / "good.svs", cohort / "more.svs")
    shutil.copytree(out / "good.zarr", out / "more.zarr")
    row = rows(tile(cohort))["more"]
    assert (row.status, row.reason) == ("failed", "the folder is not named after its slide, good")
    (out / "good.zarr" / "rc" / "zarr.json").unlink()
    (out / "good.zarr" / "rc" / "zarr.json").mkdir()
    row = rows(tile(cohort))["good"]
    assert (row.status, row.reason) == ("failed", "the store cannot be read: Is a directory")


def test_slides_with_warnings_are_counted_in_the_last_line(cohort):
    report = tile(cohort)
    assert report.summary == "3 slides: 2 failed, 1 done, 0 skipped (1 with warnings: see tile_report.html)"


def test_a_store_outlives_its_slide_but_the_run_says_that_it_is_gone(cohort):
    tile(cohort)
    table = cohort / "cohort.csv"
    table.write_text("slide_id,path\ngood,gone.svs\n")
    report = run(TileConfig(slides=table, out=cohort.parent / "out", workers=1))
    assert (report.rows[0].status, report.rows[0].reason) == ("failed", "there is no such file")
    assert problems(cohort.parent / "out" / "good.zarr") == []


def test_the_resolution_of_the_manifest_is_used_and_its_change_noticed(cohort):
    table = cohort / "cohort.csv"
    config = TileConfig(slides=table, out=cohort.parent / "out", workers=1)
    seen = []
    for mpp in ("0.25", "0.25", "0.5"):
        table.write_text(f"slide_id,path,mpp\ngood,good.svs,{mpp}\n")
        row = run(config).rows[0]
        seen.append((row.status, row.mpp, row.mpp_source))
    assert seen == [("done", 0.25, "manifest"), ("skipped", 0.25, "manifest"), ("done", 0.5, "manifest")]


def test_the_report_table_is_on_disk(cohort):
    tile(cohort)
    with (cohort.parent / "out" / "tile_report.csv").open() as file:
        read = {row["slide_id"]: row for row in csv.DictReader(file)}
    assert (read["good"]["status"], read["good"]["n_tiles"], read["good"]["mpp"]) == ("done", "6", "0.5")
    assert read["text"]["reason"].startswith("this is a text file, not a slide")


def test_a_fault_of_ours_fails_one_slide_and_asks_for_a_report(cohort, monkeypatch):
    def break_down(*_args):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(preprocessing.tile, "tile_slide", break_down)
    row = rows(tile(cohort))["good"]
    assert (row.status, row.reason) == ("failed", "ZeroDivisionError: oh")
    assert "report" in row.fix


def test_a_dead_worker_and_a_full_disk_are_explained():
    assert "fewer --workers" in describe_failure(BrokenProcessPool())[1]
    assert describe_failure(OSError(28, "No space left on device", "x.zarr"))[0] == "No space left on device: x.zarr"


def test_a_request_that_cannot_be_met_is_refused_before_any_work(cohort, tmp_path):
    with pytest.raises(CohortError):
        run(TileConfig(slides=tmp_path / "none", out=tmp_path / "out"))
    with pytest.raises(FileExistsError):
        run(TileConfig(slides=cohort, out=cohort / "good.svs"))


@pytest.mark.skipif(not SLIDES.exists(), reason="no shared slides on this machine")
def test_a_real_slide_becomes_a_valid_store(tmp_path):
    report = run(TileConfig(slides=SLIDES / "CMU-1-Small-Region.svs", out=tmp_path, mpp=0.5))
    assert (report.exit_code, report.rows[0].mpp) == (0, 0.499)
    assert report.rows[0].n_tiles > 40
    assert problems(tmp_path / "CMU-1-Small-Region.zarr") == []


def test_masks_go_out_are_mended_and_come_back_and_a_change_is_noticed(cohort):
    (cohort / "empty.svs").unlink()
    (cohort / "text.tiff").unlink()
    tile(cohort, export_masks="png")
    masks = cohort.parent / "out" / "masks"
    mask = cv2.imread(str(masks / "good.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) == {0, 1}
    mask[:, : mask.shape[1] // 2] = 0
    cv2.imwrite(str(masks / "good.png"), mask)
    mended = TissueConfig(masks=masks)
    with pytest.raises(ConfigError, match=r"tissue.masks \(False there, True now\)"):
        tile(cohort, tissue=mended)
    seen = [rows(tile(cohort, tissue=mended, overwrite=again))["good"] for again in (True, False)]
    assert [(row.status, row.reason) for row in seen] == [
        ("done", "--overwrite was given"),
        ("skipped", "complete"),
    ]
    assert 0 < seen[0].n_tiles < 6
    mask[:, :] = 1
    cv2.imwrite(str(masks / "good.png"), mask)
    again = rows(tile(cohort, tissue=mended))["good"]
    assert (again.status, again.reason, again.n_tiles) == ("done", "its mask has changed", 20)


def test_a_folder_of_masks_that_is_not_there_is_refused_before_any_work(cohort):
    with pytest.raises(ConfigError, match="the folder of masks does not exist"):
        tile(cohort, tissue=TissueConfig(masks=cohort / "none"))
    assert not (cohort.parent / "out").exists()


def test_the_canvas_of_the_paper_holds_the_whole_slide_squeezed(cohort, image):
    report = tile(cohort / "good.svs", out=cohort / "out", canvas=512, tile_px=64, min_tissue=0.0)
    store = open_store(cohort / "out" / "good.zarr")
    assert problems(store.path) == []
    assert (store.grid_shape, len(store), report.rows[0].n_tiles) == ((8, 8), 64, 64)
    assert store.attributes["side_l0"] == [160, 128]
    squeezed = store.read_region((0, 0), (512, 512)).astype(int)
    expected = np.asarray(Image.fromarray(image).resize((512, 512), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(squeezed - expected).mean() < 6


def test_a_level_that_is_near_enough_is_taken_as_it_is_and_the_store_says_so(cohort):
    tile(cohort, mpp=0.505)
    store = open_store(cohort.parent / "out" / "good.zarr")
    assert (store.mpp, store.attributes["side_l0"]) == (0.5, [256, 256])
    tile(cohort, mpp=0.505, mpp_tolerance=0.0, overwrite=True)
    store = open_store(cohort.parent / "out" / "good.zarr")
    assert store.mpp == 0.505


@pytest.mark.skipif(not SLIDES.exists(), reason="no shared slides on this machine")
def test_a_folder_of_dicom_files_is_one_slide_and_is_skipped_when_it_is_done(tmp_path):
    folder = tmp_path / "slides" / "boxes"
    folder.mkdir(parents=True)
    for file in SLIDES.glob("boxes_*.dcm"):
        shutil.copy(file, folder)
    (tmp_path / "cohort.csv").write_text("slide_id,path,mpp\nboxes,slides/boxes,0.5\n")
    config = TileConfig(slides=tmp_path / "cohort.csv", out=tmp_path / "out", workers=1, tile_px=64, min_tissue=0.0)
    assert [run(config).rows[0].status for _ in range(2)] == ["done", "skipped"]


@pytest.mark.parametrize(
    ("slides", "workers", "processes", "threads"),
    [(2, 2, 1, 2), (3, 8, 3, 3), (15, 2, 1, 2), (16, 2, 2, 1), (99, 4, 4, 1)],
)
def test_few_slides_have_threads_that_share_them_and_many_a_process_each(
    monkeypatch, slides, workers, processes, threads
):
    asked = []
    monkeypatch.setattr(
        "preprocessing.tile.completed", lambda work, entries, n: asked.append((n, work.keywords["threads"])) or ()
    )
    list(_rows_once([SlideEntry("a", Path("a.svs"))] * slides, TileConfig(slides="x", out="y", workers=workers)))
    assert asked == [(processes, threads)]


def test_what_contradicts_the_resolution_is_a_warning_of_the_slide(tmp_path, image, save_svs):
    (tmp_path / "slides").mkdir()
    save_svs(tmp_path / "slides" / "a.svs", image, mpp=0.25)  # its objective is 20x
    (row,) = tile(tmp_path / "slides").rows
    assert "the resolution is 0.25 um/px, but its objective of 20x means nominally 0.5" in row.warnings


def test_a_slide_in_fluorescence_fails_by_name_unless_accepted(tmp_path, image, save_svs):
    (tmp_path / "slides").mkdir()
    red = (255 - image) * np.array([1, 0.05, 0.02])
    save_svs(tmp_path / "slides" / "a.svs", red.astype(np.uint8))
    (row,) = tile(tmp_path / "slides").rows
    assert row.status == "failed"
    assert "seems to be in fluorescence or dark field" in row.reason
    assert "--accept dark-field" in row.fix
    (row,) = tile(tmp_path / "slides", accept=("dark-field",)).rows
    assert "fluorescence" not in row.reason


@pytest.mark.parametrize(
    ("nuclei", "around", "note"),
    [
        ((80, 50, 35), (190, 150, 105), "brown or yellow: another stain than H&E, for example IHC"),
        ((60, 50, 110), (120, 150, 205), "blue or green: another stain than H&E, for example trichrome"),
    ],
)
def test_other_stains_in_bright_field_pass_with_a_warning(tmp_path, image, save_svs, nuclei, around, note):
    """The grey of the tissue decides between the colours of nuclei and of the tissue around them."""
    grey, picture = (image.mean(axis=-1, keepdims=True) - 103) / (187 - 103), image.copy()
    tissue = np.array(nuclei) + grey.clip(0, 1) * (np.array(around) - nuclei)
    noise = np.random.default_rng(0).normal(0, 5, image.shape)
    picture[256:768, 256:1024] = (tissue + noise).clip(0, 255)[256:768, 256:1024]
    slide = save_svs(tmp_path / "a.svs", picture)
    report = run(TileConfig(slides=slide, out=tmp_path / "out", workers=1))
    assert note in report.rows[0].warnings
    assert report.summary == "1 slide: 0 failed, 1 done, 0 skipped (1 with warnings: see tile_report.html)"


def test_the_md5_of_a_manifest_is_compared_if_asked(tmp_path, svs):
    for name in ("good", "cut"):
        (tmp_path / name).mkdir()
        shutil.copy(svs, tmp_path / name / f"{name}.svs")
    digest = md5(svs.read_bytes()).hexdigest()
    lines = "".join(f"{name}\t{name}.svs\t{digest.upper()}\t1\tvalidated\n" for name in ("good", "cut"))
    manifest = tmp_path / "gdc_manifest.txt"
    manifest.write_text(f"id\tfilename\tmd5\tsize\tstate\n{lines}")
    with (tmp_path / "cut" / "cut.svs").open("ab") as file:
        file.write(b"x")
    found = rows(run(TileConfig(slides=manifest, out=tmp_path / "out", workers=1, check_md5=True)))
    assert {name: row.status for name, row in found.items()} == {"good": "done", "cut": "failed"}
    assert f"in the manifest it is {digest}" in found["cut"].reason
    assert run(TileConfig(slides=manifest, out=tmp_path / "all", workers=1)).exit_code == 0
    with pytest.raises(ConfigError, match="no list of the slides has their MD5"):
        tile(tmp_path / "good", check_md5=True)
