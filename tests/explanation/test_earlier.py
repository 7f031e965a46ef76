"""Slides that a second start of `explain` explains again: new, changed or incomplete, or read with such a slide."""

import shutil
from pathlib import Path

import pytest

from longvit.cli.app import run_command
from longvit.config import ExplainConfig
from longvit.explanation import models
from longvit.explanation.explain import run
from longvit.explanation.faithfulness import CURVE_FILES


@pytest.fixture
def config(runs, new, settings, tmp_path) -> ExplainConfig:
    """Early fusion of slides that may be changed."""
    shutil.copytree(new / "stores", tmp_path / "stores")
    return ExplainConfig(model=runs["cox"], fold=0, **settings | {"stores": tmp_path / "stores"})


def again(config: ExplainConfig) -> set[str]:
    """The slides that another start writes."""
    folders = {path.name: path.stat().st_ino for path in config.out.iterdir()}
    assert run(config).failed == {}
    return {path.name for path in config.out.iterdir() if path.stat().st_ino != folders.get(path.name)}


def test_a_start_without_changes_does_nothing(config, titles, capsys):
    run(config)
    assert again(config) == set()
    assert "nothing to do" in capsys.readouterr().err
    by_file = config.model_copy(update={"fold": None, "model": config.model / "fold_0" / "model.safetensors"})
    assert again(by_file) == set()


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        *[
            (f, ("contribution",))
            for f in ("overlay_contribution.png", "tiles_contribution.png", "contribution.geojson")
        ],
        *[("heatmap_contribution.ome.tif", ("contribution",)), ("scores.csv", ("received",))],
    ],
)
def test_a_slide_with_a_deleted_file_is_explained_again(name, methods, config, titles, capsys):
    config = config.model_copy(update={"methods": methods})
    run(config)
    (config.out / "N2" / name).unlink()
    assert again(config) == {"N2"}
    assert f"N2: without {name}; the slide is explained again" in capsys.readouterr().err
    assert (config.out / "N2" / name).is_file()
    assert again(config) == set()


def test_deleted_curves_and_damaged_documents_are_made_again(config, titles, monkeypatch):
    write = lambda *curves_and_folder: [(curves_and_folder[-1] / name).touch() for name in CURVE_FILES]
    monkeypatch.setattr("longvit.explanation.explain.measure_faithfulness", lambda *_: ({}, {}, "risk"))
    monkeypatch.setattr("longvit.explanation.explain.save_curves", write)
    config = config.model_copy(update={"methods": ("received",), "faithfulness": True, "occlusion_side": 4})
    run(config)
    (config.out / "N2" / "faithfulness.png").unlink()
    (config.out / "N1" / "explanation.json").write_text("{")
    assert again(config) == {"N0", "N1", "N2"}, "N0 and N1 are one sequence"
    assert again(config) == set()


def test_a_new_slide_of_a_patient_makes_a_new_map_of_all_slides(config, titles, tmp_path, capsys):
    (config.stores / "N1.zarr").rename(tmp_path / "N1.zarr")
    run(config)
    assert titles["N0"].count("\n") == 0
    (tmp_path / "N1.zarr").rename(config.stores / "N1.zarr")
    assert again(config) == {"N0", "N1"}
    assert "1 store is new: N1" in capsys.readouterr().err
    assert titles["N0"].endswith("patient Q, 2 slides read as one")


def damage(store: Path) -> None:
    for path in (store / "tiles" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0" * 64)


def test_a_damaged_slide_is_named_and_the_others_are_explained(config, new, titles, capsys):
    damage(config.stores / "N2.zarr")
    command = f"explain --model {config.model} --stores {config.stores} --table {config.table} --out {config.out}"
    assert run_command([*command.split(), "--methods", "received", "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert "failed: N2: " in printed.err
    assert printed.out.split("\n")[-3:] == [str(config.out / "N0"), str(config.out / "N1"), ""]
    assert "2 patients with 3 slides, by table.csv; a patient's slides are read as one sequence" in printed.err
    shutil.rmtree(config.stores / "N2.zarr")
    shutil.copytree(new / "stores" / "N2.zarr", config.stores / "N2.zarr")
    assert run_command([*command.split(), "--methods", "received", "--device", "cpu"]) == 0
    assert sorted(path.name for path in config.out.iterdir()) == ["N0", "N1", "N2"]


def test_slides_of_a_patient_are_all_written_or_none(config, titles):
    damage(config.stores / "N1.zarr")
    explained = run(config)
    assert list(explained.failed) == ["N0;N1"]
    assert [path.name for path in config.out.iterdir()] == ["N2"]


def test_each_model_is_read_once_for_all_slides(config, titles, monkeypatch):
    calls, load = [], models.load_ensemble
    monkeypatch.setattr(models, "load_ensemble", lambda run: calls.append(run) or load(run))
    assert list(run(config.model_copy(update={"fold": None, "methods": ("received",)})).folders) == ["N0", "N1", "N2"]
    assert calls == [config.model]
