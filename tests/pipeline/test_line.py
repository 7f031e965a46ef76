"""The line from slides to report and heatmap, every step through the command line."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from safetensors import safe_open

from longvit.cli.app import run_command
from preprocessing import open_store, problems
from preprocessing.errors import ConfigError

SLIDES = Path(__file__).parents[2] / ".." / "shared" / "data" / "slides"
KEYS = ["patient_id", "slide_id", "fold", "split"]
UNTOUCHED = {  # what stays as it is when the verb is run again; the rest is written anew, with the same content
    "tile": lambda name: ".zarr" in name,
    "pretrain": lambda _: True,
    "finetune subtype": lambda _: True,
    "finetune survival": lambda _: True,
}


def test_tiling_leaves_a_valid_store_of_every_slide(line):
    slides = sorted(path.stem for path in line.cohort.slides.iterdir())
    assert sorted(path.stem for path in line.stores.glob("*.zarr")) == slides
    assert {path.name: problems(path) for path in line.stores.glob("*.zarr")} == {f"{name}.zarr": [] for name in slides}
    assert {path.name for path in line.stores.iterdir() if path.suffix != ".zarr"} == {
        "tile_report",
        "tile_report.csv",
        "tile_report.html",
    }


def test_the_report_of_tiling_has_the_published_columns_and_a_row_for_every_slide(line):
    report = pd.read_csv(line.stores / "tile_report.csv", keep_default_na=False)
    assert list(report) == ["slide_id", "status", "reason", "fix", "n_tiles", "mpp", "mpp_source", "seconds"]
    assert list(report["slide_id"]) == sorted(path.stem for path in line.cohort.slides.iterdir())
    assert set(report["status"]) <= {"done", "skipped"}
    assert set(zip(report["mpp"], report["mpp_source"], strict=True)) == {(0.5, "metadata")}
    assert list(report["n_tiles"]) == [len(open_store(line.stores / f"{name}.zarr")) for name in report["slide_id"]]


def test_pretraining_leaves_an_encoder_with_its_config_inside(line):
    folder = line.encoder.parent
    assert {path.name for path in folder.iterdir()} == {
        "checkpoints",
        "config.yaml",
        "encoder.safetensors",
        "inputs.json",
        "metrics.csv",
        "run.json",
        "tensorboard",
        "timing.csv",
    }
    with safe_open(line.encoder, "pt") as file:
        config = json.loads(file.metadata()["longvit_encoder_config"])
    assert (config["width"], config["depth"], config["segment_lengths"]) == (32, 2, [64, 256])
    loss = pd.read_csv(folder / "metrics.csv")["loss"]
    assert loss.between(0, 10).all()
    assert len(loss) == 1


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("subtype", ["label", "p_SYNA", "p_SYNS", "shuffled"]),
        ("survival", ["time", "event", "time_unit", "risk", "shuffled"]),
    ],
)
def test_finetuning_leaves_predictions_with_the_published_columns(line, task, columns):
    predictions = pd.read_csv(line.root / task / "predictions.csv")
    assert list(predictions) == KEYS + columns
    assert predictions[KEYS + columns[:-1]].notna().all(axis=None)


def test_every_slide_is_held_out_once_by_the_real_models_and_once_by_the_control(line):
    predictions = pd.read_csv(line.root / "subtype" / "predictions.csv")
    held_out = predictions[predictions["split"] == "test"]
    slides = sorted(path.stem for path in line.cohort.slides.iterdir())
    assert sorted(held_out.loc[held_out["shuffled"].isna(), "slide_id"]) == slides
    assert sorted(held_out.loc[held_out["shuffled"] == 0, "slide_id"]) == slides


def test_targets_of_the_predictions_are_those_of_the_table(line):
    table = pd.read_csv(line.cohort.dataset).drop_duplicates("case_id").set_index("case_id")
    subtype = pd.read_csv(line.root / "subtype" / "predictions.csv")
    assert list(subtype["label"]) == list(table.loc[subtype["patient_id"], "oncotree_code"])
    survival = pd.read_csv(line.root / "survival" / "predictions.csv")
    assert list(survival["time"]) == list(table.loc[survival["patient_id"], "survival_months"])
    assert list(survival["event"]) == list(1 - table.loc[survival["patient_id"], "censorship"])


def test_each_fold_keeps_its_model(line):
    for task in ("subtype", "survival"):
        models = sorted(path.parent.name for path in (line.root / task).glob("fold_*/model.safetensors"))
        assert models == ["fold_0", "fold_1", "fold_2"]


@pytest.mark.parametrize(("task", "headline", "controls"), [("subtype", "auroc", 1), ("survival", "c_index", 0)])
def test_evaluating_leaves_metrics_that_can_be_true(line, task, headline, controls):
    metrics = json.loads((line.root / task / "metrics.json").read_text())
    assert (metrics["headline"], metrics["split"], metrics["n_patients"]) == (headline, "test", 15)
    assert [fold["n_patients"] for fold in metrics["folds"]] == [5, 5, 5]
    assert metrics["n_shuffles"] == controls
    pooled = metrics["pooled"][headline]
    assert 0 <= pooled["low"] <= pooled["value"] <= pooled["high"] <= 1
    assert (pooled["shuffled"] is not None) == bool(controls)


@pytest.mark.parametrize("task", ["subtype", "survival"])
def test_the_page_of_an_evaluation_stands_alone(line, task):
    page = (line.root / task / "report.html").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert 'src="http' not in page


def test_explaining_leaves_a_picture_and_a_score_for_every_token(line):
    store = open_store(line.stores / f"{sorted(path.stem for path in line.cohort.slides.iterdir())[0]}.zarr")
    folder = line.root / "explain" / store.slide_id
    layers = json.loads((folder / "explanation.json").read_text())["layers"]
    with Image.open(folder / f"overlay_{layers[0]['key']}.png") as picture:
        assert min(picture.size) > 300
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["x_l0", "y_l0", "row", "column", "piece", *(layer["key"] for layer in layers)]
    assert len(rows) == len(store) * (128 // 32) ** 2
    assert all(int(row["x_l0"]) == 32 * int(row["column"]) for row in rows)


def test_a_run_keeps_what_is_needed_to_run_it_again(line):
    for folder, verb in (("pretrain", "pretrain"), ("subtype", "finetune"), ("survival", "finetune")):
        (start,) = json.loads((line.root / folder / "run.json").read_text())
        assert start["verb"] == verb
        assert {"command", "started", "longvit", "commit", "python", "libraries", "machine"} <= set(start)
        config = line.root / folder / "config.yaml"
        assert run_command([verb, "--config", str(config)]) == 0


@pytest.mark.parametrize("verb", ["tile", "pretrain", "finetune subtype", "finetune survival", "evaluate subtype"])
def test_running_a_verb_again_does_no_work_and_changes_nothing(line, listing, verb):
    before = listing(line.root)
    assert run_command(line.commands[verb]) == 0
    after = listing(line.root)
    assert set(after) == set(before)
    anew = {name for name in before if before[name] != after[name] and (line.root / name).is_file()}
    untouched = UNTOUCHED.get(verb, lambda _: False)
    assert not {name for name in anew if untouched(name)}
    assert {name for name in anew if before[name][1] != after[name][1]} <= {
        "stores/tile_report.csv",
        "stores/tile_report.html",
    }


def test_tiling_again_says_that_every_slide_was_skipped(line):
    run_command(line.commands["tile"])
    report = pd.read_csv(line.stores / "tile_report.csv")
    assert set(report["status"]) == {"skipped"}


def test_other_settings_are_refused_in_the_folder_of_a_run(line, listing):
    before = listing(line.root / "pretrain")
    with pytest.raises(ConfigError, match="other settings \\(seed\\)"):
        run_command([*line.commands["pretrain"], "--seed", "1"])
    assert listing(line.root / "pretrain") == before


@pytest.fixture(scope="module")
def real_slides():
    if not SLIDES.is_dir():
        pytest.skip("no shared slides beside this checkout (../shared/data/slides)")
    return SLIDES


@pytest.fixture(scope="module")
def tiled(real_slides, tmp_path_factory):
    out = tmp_path_factory.mktemp("tiled")
    code = run_command(["tile", "--slides", str(real_slides), "--out", str(out), "--workers", "1"])
    return code, out, pd.read_csv(out / "tile_report.csv", keep_default_na=False).set_index("slide_id")


def test_real_tissue_becomes_a_valid_store_at_its_own_resolution_which_is_near_the_one_asked_for(tiled):
    _, out, report = tiled
    path = out / "CMU-1-Small-Region.zarr"
    assert problems(path) == []
    assert (open_store(path).mpp, float(report.loc["CMU-1-Small-Region", "mpp"])) == (0.499, 0.499)
    assert len(open_store(path)) == report.loc["CMU-1-Small-Region", "n_tiles"] > 40


def test_every_real_slide_is_reported_and_the_bad_ones_say_why_and_what_to_do(tiled, real_slides):
    code, out, report = tiled
    files = {path.stem for path in real_slides.rglob("*") if path.is_file()}
    assert set(report.index) <= files
    failed = report[report["status"] == "failed"]
    assert code == 1
    assert {"small", "google"} <= set(failed.index)
    assert (failed["reason"].str.len() > 20).all()
    assert (failed["fix"].str.len() > 20).all()
    done = set(report.index) - set(failed.index)
    assert {path.stem for path in out.glob("*.zarr")} == done


@pytest.mark.parametrize("name", ["unopenable.tiff", "unreadable.svs"])
def test_a_broken_file_is_named(name, real_slides, tmp_path, capsys):
    assert run_command(["tile", "--slides", str(real_slides / "bad" / name), "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"failed: {Path(name).stem}: " in said
    assert "fix:" in said
    assert not list(tmp_path.glob("*.zarr"))
