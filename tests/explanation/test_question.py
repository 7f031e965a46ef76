"""The number on the overlay is that of `predict`, and the map of a run is the mean of its folds' maps."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longvit.config import ExplainConfig, PredictConfig
from longvit.explanation import methods
from longvit.explanation.explain import run
from longvit.formats.explanation_json import ExplanationFolder
from longvit.model.predictor import load_model
from longvit.prediction.ensemble import load_ensemble
from longvit.prediction.predict import run as predict
from longvit.tokens.source import token_source
from preprocessing.errors import CheckpointError
from preprocessing.store.store import open_store

TASKS = ("subtype", "cox")


def explain(model: Path, settings: dict, **more) -> dict[str, tuple[ExplanationFolder, pd.DataFrame]]:
    """Document and scores of each slide, in a folder of its own for each call."""
    out = settings["out"] / f"{model.name} {more}"
    explained = run(ExplainConfig(model=model, **settings | {"out": out} | more))
    assert explained.failed == {}
    return {
        slide: (ExplanationFolder.read(folder), pd.read_csv(folder / "scores.csv"))
        for slide, folder in explained.folders.items()
    }


def number(document: ExplanationFolder) -> str:
    """The number of a title."""
    of = document.prediction
    return f"risk {of['risk']:+.2f}" if "risk" in of else f"P({document.target}) = {of[f'p_{document.target}']:.2f}"


def rows_of_slides(rows: pd.DataFrame) -> dict[str, dict]:
    """The row of predictions.csv that each slide is in."""
    return {slide: row for row in rows.to_dict("records") for slide in row["slide_id"].split(";")}


@pytest.mark.parametrize("task", TASKS)
def test_the_number_of_a_run_is_that_of_predict(task, runs, new, settings, titles, tmp_path):
    config = PredictConfig(
        run=runs[task], stores=new / "stores", table=new / "table.csv", out=tmp_path / "p", device="cpu"
    )
    rows = rows_of_slides(pd.read_csv(predict(config).table))
    explained = explain(runs[task], settings)
    assert list(explained) == ["N0", "N1", "N2"]
    for slide, (document, _) in explained.items():
        row = {name: rows[slide][name] for name in document.prediction}
        assert document.prediction == pytest.approx(row, abs=1e-5)
        first, about = titles[slide].split("\n")
        assert first == f"{slide}: {number(document)}"
        joined = task == "cox" and slide != "N2"
        assert about == "mean of 2 folds" + ("; patient Q, 2 slides read as one" if joined else "")
        assert (document.folds, document.slides) == ((0, 1), ("N0", "N1") if joined else ())
        assert document.patient == ("Q" if joined else None)


@pytest.mark.parametrize("task", TASKS)
def test_the_number_of_a_fold_is_that_of_the_runs_predictions(task, runs, cohort, settings, titles, tmp_path):
    (tmp_path / "stores").mkdir()
    for slide in ("P02-0", "P02-1"):  # tested by fold 0, and trained on by fold 1
        (tmp_path / "stores" / f"{slide}.zarr").symlink_to(cohort.stores / f"{slide}.zarr")
    asked = settings | {"stores": tmp_path / "stores", "table": None, "methods": ("received",)}
    rows = pd.read_csv(runs[task] / "predictions.csv")
    rows = rows_of_slides(rows[(rows["fold"] == 0) & (rows["split"] == "test")])
    explained = explain(runs[task], asked, fold=0)
    assert list(explained) == ["P02-0", "P02-1"]
    for slide, (document, _) in explained.items():
        assert document.prediction == pytest.approx({name: rows[slide][name] for name in document.prediction}, abs=1e-4)
        assert titles[slide].split("\n")[0] == f"{slide}: {number(document)}"
        assert document.seen_by == ()
    for document, _ in explain(runs[task], asked).values():
        assert document.seen_by == (1,)
        assert titles[document.slide_id].endswith("; trained or selected on the patient: folds 1")


@pytest.mark.parametrize("task", TASKS)
def test_the_map_of_a_run_is_the_mean_of_the_maps_of_its_folds(task, runs, settings, titles):
    whole = explain(runs[task], settings, target="LUSC" if task == "subtype" else None)
    folds = [
        explain(path, settings, fold=fold, target="LUSC" if task == "subtype" else None)
        for path, fold in ((runs[task], 0), (runs[task] / "fold_1", None))
    ]
    scales = load_ensemble(runs[task]).scales
    units = [1 / scale.sd for scale in scales] or [
        1,
        1,
    ]  # risks of each fold are in deviations of its training patients
    assert task == "subtype" or abs(units[0] / units[1] - 1) > 0.01
    for slide, (document, table) in whole.items():
        own = [of_fold[slide][1] for of_fold in folds]
        for layer in document.layers:
            weights = units if layer.signed else (1, 1)
            mean = sum(weight * one[layer.key] for weight, one in zip(weights, own, strict=True)) / 2
            np.testing.assert_allclose(table[layer.key], mean, rtol=1e-4, atol=1e-6)
            assert "mean of 2 folds" in layer.meaning
        assert not np.allclose(own[0]["contribution"], own[1]["contribution"], rtol=0.1)


def test_contributions_of_a_run_add_up_to_its_risk(runs, settings, titles):
    explained = explain(runs["cox"], settings, methods=("contribution",))
    models = [load_model(runs["cox"] / f"fold_{k}" / "model.safetensors") for k in (0, 1)]
    scales = load_ensemble(runs["cox"]).scales
    for_mean_slide = np.mean(
        [scale.standardised(model.head.linear.bias.item()) for model, scale in zip(models, scales, strict=True)]
    )
    for patient in (("N0", "N1"), ("N2",)):
        total = sum(explained[slide][1]["contribution"].sum() for slide in patient)
        risk = explained[patient[0]][0].prediction["risk"]
        assert total == pytest.approx(risk - for_mean_slide, abs=1e-4)


def test_slides_of_one_sequence_have_one_scale_and_their_own_places(runs, new, settings, titles):
    explained = explain(runs["cox"], settings)
    (first, _), (second, _) = explained["N0"], explained["N1"]
    assert first.layers == second.layers
    contribution = np.concatenate([explained[slide][1]["contribution"] for slide in ("N0", "N1")])
    assert first.layers[0].vmax == pytest.approx(np.quantile(np.abs(contribution), 0.99), rel=1e-4)
    assert explained["N2"][0].layers[0].vmax != first.layers[0].vmax
    encoder = load_model(runs["cox"] / "fold_0" / "model.safetensors").required_encoder
    for slide, (_, table) in explained.items():
        expected = token_source(open_store(new / "stores" / f"{slide}.zarr"), encoder.config.input).rc
        assert sorted(map(tuple, table[["row", "column"]].to_numpy())) == sorted(map(tuple, expected))


def test_the_mean_attention_of_a_sequence_is_that_of_all_its_slides(runs, settings, titles):
    explained = explain(runs["cox"], settings)
    received = np.concatenate([explained[slide][1]["received"] for slide in ("N0", "N1")])
    assert received.mean() == pytest.approx(1, abs=1e-4)
    assert abs(explained["N0"][1]["received"].mean() - 1) > 1e-4, "slides attend to each other"


def test_ranks_are_over_all_slides_of_a_sequence(runs, settings, titles):
    explained = explain(runs["cox"], settings, rank=True, methods=("received",))
    ranks = np.concatenate([explained[slide][1]["received"] for slide in ("N0", "N1")])
    np.testing.assert_allclose(np.sort(ranks), np.linspace(0, 1, len(ranks)), atol=1e-6)


@pytest.mark.parametrize(("task", "times"), [("subtype", 1), ("cox", 2)], ids=["one encoder", "an encoder per fold"])
def test_attention_of_an_encoder_that_folds_share_is_computed_once(task, times, runs, settings, titles, monkeypatch):
    calls, received = [], methods.received_attention
    monkeypatch.setattr(methods, "received_attention", lambda *given: calls.append(1) or received(*given))
    sequences = 3 if task == "subtype" else 2
    explain(runs[task], settings)
    assert len(calls) == times * sequences


def test_faithfulness_of_a_sequence_is_measured_over_all_its_slides(runs, settings, titles, monkeypatch):
    saved = {}

    def save(found, blind, quantity, folder) -> None:
        saved[folder.name.split(".")[1]] = found | blind

    monkeypatch.setattr("longvit.explanation.explain.save_curves", save)
    explained = explain(runs["cox"], settings, fold=0, methods=("received",), faithfulness=True)
    assert saved["N0"]["random"].deletion.tolist() == saved["N1"]["random"].deletion.tolist()
    assert saved["N0"]["random"].deletion.tolist() != saved["N2"]["random"].deletion.tolist()
    assert list(saved["N0"]) == ["Attention received", "random", "centre"]
    for slide in ("N0", "N2"):
        risk = explained[slide][0].prediction["risk"]
        for curve in saved[slide].values():
            assert curve.deletion[0] == pytest.approx(risk, abs=1e-4)
            assert curve.insertion[-1] == pytest.approx(risk, abs=1e-4)


def test_no_name_of_a_patient_is_written_under_pseudonyms(runs, settings, titles, tmp_path):
    out = explain(runs["cox"], settings, methods=("received",), pseudonyms=tmp_path / "key")
    documents = [one for one, _ in out.values()]
    assert [one.patient is not None for one in documents] == [True, True, False]
    for one in documents:
        names = {one.slide_id, *one.slides, *filter(None, [one.patient])}
        assert all(name.startswith("P-") for name in names)
        recorded = json.loads((one.folder / "inputs.json").read_text())["stores"]
        assert set(recorded) == set(one.slides or (one.slide_id,))


def test_an_output_that_is_not_finite_is_an_error_of_its_slide(runs, settings, titles, monkeypatch):
    def broken(output_O, name) -> None:
        if name == "N2":
            raise CheckpointError("the model gives values that are not finite", where=name, fix="train again")

    monkeypatch.setattr("longvit.explanation.question.require_finite", broken)
    explained = run(ExplainConfig(model=runs["cox"], **settings))
    assert list(explained.failed) == ["N2"]
    assert list(explained.folders) == ["N0", "N1"]
