import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
import torch
from shapely.geometry import shape

from longvit.config import EmbeddingInput, ExecutionConfig, ExplainConfig, ViewConfig
from longvit.explanation import attention_rollout, files, received_attention, token_contributions
from longvit.explanation.explain import run as explain_slide
from longvit.explanation.model_output import ModelOutput
from longvit.model import LongViT
from longvit.model.predictor import SlideModel, save_model
from longvit.runs.privacy import Pseudonyms
from longvit.tokens.read import StoreScale, slide_tokens
from longvit.viewer.find import find
from preprocessing.errors import CheckpointError, ConfigError, StoreError
from preprocessing.store.features import add_embeddings

PLACES = [[3, 1], [0, 4], [0, 0], [2, 2]]
EVERY_METHOD = ("contribution", "received", "rollout", "gradient", "integrated_gradients", "occlusion")


@pytest.fixture
def config(saved, store, tmp_path) -> ExplainConfig:
    return ExplainConfig(model=saved["subtype"], stores=store.path, out=tmp_path / "out", device="cpu")


def run(config: ExplainConfig) -> Path:
    """The folder of the only slide."""
    explained = explain_slide(config)
    assert explained.failed == {}
    (folder,) = explained.folders.values()
    return folder


def changed(config: ExplainConfig, **values) -> ExplainConfig:
    return config.model_copy(update=values)


def read(folder) -> tuple[dict, pd.DataFrame]:
    return json.loads((folder / "explanation.json").read_text()), pd.read_csv(folder / "scores.csv")


def test_a_run_leaves_scores_pictures_and_files_for_qupath(config):
    folder = run(changed(config, methods=("contribution", "received")))
    assert folder == config.out / "slide"
    each = ["{}.geojson", "heatmap_{}.ome.tif", "overlay_{}.png", "tiles_{}.png"]
    names = [name.format(key) for name in each for key in ("contribution", "received")]
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        [*names, "explanation.json", "inputs.json", "scores.csv"]
    )
    for picture in folder.glob("*.png"):
        assert cv2.imread(str(picture)).std() > 5
    assert [path.name for path in config.out.iterdir()] == ["slide"]


def test_files_for_qupath_have_its_frame_and_pictures_show_the_scanned_part(config, save_store):
    store = save_store("slide", PLACES, bounds_l0=(100, 50, 400, 300))
    whole = run(changed(config, methods=("received",), geojson_frame="slide", out=config.out / "whole"))
    folder = run(changed(config, methods=("received",)))
    ours, theirs = ([one["geometry"] for one in json.loads((path / "received.geojson").read_text())["features"]]
                    for path in (folder, whole))  # fmt: skip
    np.testing.assert_array_equal([one["coordinates"][0][0] for one in theirs], store.xy_l0)
    np.testing.assert_array_equal([one["coordinates"][0][0] for one in ours], store.xy_l0 - (100, 50))
    assert all(shapely.is_valid(shape(one)) for one in ours)
    document, _ = read(folder)
    assert document["size_l0"] == [640, 512]
    with pytest.raises(ConfigError, match=r"other settings \(geojson_frame"):
        run(changed(config, methods=("received",), geojson_frame="slide"))


def test_the_frame_is_no_setting_of_a_slide_without_empty_borders(config, capsys):
    run(changed(config, methods=("received",)))
    run(changed(config, methods=("received",), geojson_frame="slide"))
    assert "nothing to do" in capsys.readouterr().err


def test_gradients_are_computed_as_the_execution_says_and_by_default_with_one_vector_per_token_and_block(
    config, executions
):
    run(changed(config, methods=("gradient", "received")))
    assert {one.recompute for one in executions} == {"blocks"}
    executions.clear()
    run(changed(config, methods=("gradient",), overwrite=True, execution=ExecutionConfig(heads_at_once=1)))
    assert set(executions) == {ExecutionConfig(heads_at_once=1)}


def test_another_execution_is_no_other_explanation(config, capsys):
    run(config)
    run(changed(config, execution=ExecutionConfig()))
    assert "nothing to do" in capsys.readouterr().err


def test_the_document_says_what_the_columns_are(config, store, subtype_model, saved):
    document, table = read(run(changed(config, target="LUSC", methods=EVERY_METHOD, occlusion_side=8)))
    with torch.no_grad():
        p = subtype_model(slide_tokens(store, subtype_model.encoder.config.input))[0].double().softmax(0)
    assert document["slide_id"] == "slide"
    assert document["target"] == "LUSC"
    assert document["prediction"] == pytest.approx({"p_LUAD": float(p[0]), "p_LUSC": float(p[1])}, rel=1e-5)
    assert (document["size_l0"], document["side_l0"], document["mpp"]) == ([640, 512], [32.0, 32.0], 0.25)
    assert (document["model"], document["store"]) == ("subtype.safetensors", "slide.zarr")  # not in the working folder
    keys = [layer["key"] for layer in document["layers"]]
    assert list(table) == ["x_l0", "y_l0", "row", "column", *keys]
    assert keys[:4] == ["contribution", "received", "received_layer_01", "received_layer_02"]
    assert [layer["layer"] for layer in document["layers"]][:4] == [None, None, 1, 2]
    for layer in document["layers"]:
        assert layer["method"] in EVERY_METHOD
        assert layer["vmin"] < layer["vmax"]
        assert (layer["vmin"] == -layer["vmax"]) == layer["signed"]
        assert len(layer["colours"]) > 10
        assert len(layer["meaning"]) > 10


@pytest.mark.parametrize("target", ["LUAD", "LUSC"])
def test_the_table_has_the_scores_of_every_token_at_its_place(config, store, subtype_model, tokens, target):
    _, table = read(run(changed(config, target=target, methods=("contribution", "received", "rollout"))))
    batch = slide_tokens(store, subtype_model.encoder.config.input)
    assert table[["row", "column"]].to_numpy().tolist() == batch.rc_BL2[0].tolist()
    # A tile is 64 store pixels and 128 of level 0; a token is 16 store pixels, so 32 of level 0.
    np.testing.assert_array_equal(table[["x_l0", "y_l0"]], table[["column", "row"]] * 32)
    expected = token_contributions(ModelOutput(subtype_model, ["LUAD", "LUSC"].index(target)), tokens)
    np.testing.assert_allclose(table["contribution"], expected, atol=1e-6)
    received = received_attention(subtype_model.encoder, tokens)
    np.testing.assert_allclose(table[["received_layer_01", "received_layer_02"]].T, received, atol=1e-5)
    np.testing.assert_allclose(table["received"], received.mean(0), atol=1e-5)
    np.testing.assert_allclose(table["rollout"] / 64, attention_rollout(subtype_model.encoder, tokens), atol=1e-6)


def test_the_heatmap_lies_on_the_slide_in_micrometres(config):
    folder = run(changed(config, methods=("rollout",)))
    _, table = read(folder)
    with tifffile.TiffFile(folder / "heatmap_rollout.ome.tif") as tiff:
        grid = tiff.asarray()
        assert 'PhysicalSizeX="8.0"' in tiff.ome_metadata  # 32 pixels of 0.25 um
    np.testing.assert_allclose(grid[table["row"], table["column"]], table["rollout"], rtol=1e-5)
    assert np.isfinite(grid).sum() == 64


def test_the_picture_is_scaled_from_level_0_to_the_overview(config, save_store, monkeypatch):
    seen, overlay = {}, files.overlay

    def watched(image, grid, extent_px, scale, title, label, **more):
        seen.update(image=image, grid=grid, extent_px=extent_px, title=title, label=label, **more)
        return overlay(image, grid, extent_px, scale, title, label, **more)

    monkeypatch.setattr(files, "overlay", watched)
    run(changed(config, target="LUAD", methods=("contribution",)))
    # The slide is 5 x 4 tiles of 128 pixels, its overview 5 x 4 of 8: a token of 32 pixels covers 2 of the overview.
    rows, columns = seen["grid"].shape
    assert seen["extent_px"] == (columns * 2, rows * 2)
    assert re.fullmatch(r"slide: P\(LUAD\) = [01]\.\d\d", seen["title"])
    assert "logit of LUAD" in seen["label"]
    run(changed(config, methods=("contribution",), overlay_mpp=0.5, overwrite=True))
    assert seen["image"].shape == (256, 320, 3)
    assert seen["extent_px"] == (columns * 16, rows * 16)
    assert seen["corner_px"] == (0, 0)
    save_store("slide", PLACES, bounds_l0=(128, 64, 256, 320))
    run(changed(config, methods=("contribution",), overwrite=True))
    assert (seen["image"].shape[:2], seen["corner_px"]) == ((20, 16), (-8, -4))


def test_without_a_target_the_predicted_class_is_explained(config):
    document, _ = read(run(config))
    assert document["target"] == max(("LUAD", "LUSC"), key=lambda name: document["prediction"][f"p_{name}"])


@pytest.mark.parametrize(("name", "quantity"), [("survival", "log hazard"), ("nll", "risk"), ("normed", "log hazard")])
def test_a_survival_model_explains_its_risk(config, saved, name, quantity):
    document, _ = read(run(changed(config, model=saved[name], methods=("contribution",))))
    assert document["target"] == "risk"
    assert list(document["prediction"]) == ["risk"]
    assert f"share of the {quantity} " in document["layers"][0]["meaning"]


@pytest.mark.parametrize(("name", "truest"), [("subtype", "contribution"), ("class", "integrated_gradients")])
def test_the_default_is_the_truest_map_that_the_model_allows_and_two_of_attention(config, saved, name, truest):
    document, _ = read(run(changed(config, model=saved[name])))
    assert [one["key"] for one in document["layers"] if one["layer"] is None] == [truest, "received", "rollout"]


def test_attention_pooling_shows_its_weights(config, saved):
    document, table = read(run(changed(config, model=saved["attention"], methods=("pooling", "contribution"))))
    assert [layer["key"] for layer in document["layers"]] == ["pooling", "contribution"]
    assert table["pooling"].mean() == pytest.approx(1, abs=1e-5)
    assert table["pooling"].std() > 0.1


def test_a_model_that_reads_a_class_token_is_explained_by_what_can(config, saved):
    document, _ = read(run(changed(config, model=saved["class"], methods=("received", "rollout", "gradient"))))
    assert len(document["layers"]) == 5
    with pytest.raises(CheckpointError, match="contribution cannot explain this model: the slide's vector is a class"):
        run(changed(config, model=saved["class"], methods=("contribution",), out=config.out / "no"))
    assert not (config.out / "no").exists()


def test_weights_are_not_shown_where_there_is_no_attention_pooling(config):
    with pytest.raises(CheckpointError, match="no attention pooling"):
        run(changed(config, methods=("pooling",)))


def test_ranks_take_the_place_of_scores(config):
    config = changed(config, methods=("contribution", "received"))
    _, plain = read(run(config))
    document, table = read(run(changed(config, rank=True, overwrite=True)))  # in the place of the first
    np.testing.assert_allclose(np.sort(table["received"]), np.linspace(0, 1, 64), atol=1e-6)
    assert table["received"].argmax() == plain["received"].argmax()
    np.testing.assert_array_equal(table["contribution"] > 0, plain["contribution"] > 0)
    assert all(layer["meaning"].startswith("rank of: ") for layer in document["layers"])


def test_a_model_of_embeddings_explains_tiles(config, store, subtype_model, tiny_encoder, tmp_path):
    add_embeddings(store.path, "uni", np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), {})
    encoder = LongViT(tiny_encoder.model_copy(update={"input": EmbeddingInput(encoder="uni", dim=6)}))
    save_model(tmp_path / "tiles.safetensors", SlideModel(encoder, subtype_model.task, subtype_model.classes))
    document, table = read(run(changed(config, model=tmp_path / "tiles.safetensors")))
    assert document["side_l0"] == [128.0, 128.0]
    assert sorted(map(tuple, table[["row", "column"]].to_numpy())) == sorted(map(tuple, store.rc))


def test_a_class_that_the_model_has_not_is_refused_with_those_it_has(config):
    with pytest.raises(ConfigError, match="the model has no class MESO") as error:
        run(changed(config, target="MESO"))
    assert error.value.fix == "choose from LUAD, LUSC"
    assert not config.out.exists()


def test_a_survival_model_has_no_classes_to_choose_from(config, saved):
    with pytest.raises(ConfigError) as error:
        run(changed(config, model=saved["survival"], target="LUAD"))
    assert "leave target out" in error.value.fix


@pytest.mark.parametrize("asked", [{"methods": ("occlusion",)}, {"methods": ("rollout",), "faithfulness": True}])
def test_squares_that_hold_the_whole_slide_are_refused(config, asked):
    with pytest.raises(ConfigError, match="one square of 64 x 64 tokens contains the whole slide"):
        run(changed(config, **asked, occlusion_side=64))
    assert not config.out.exists()


@torch.no_grad()
def test_each_map_is_measured_beside_orders_that_know_nothing(config, subtype_model, tokens):
    settings = {"methods": ("occlusion", "received"), "target": "LUSC", "occlusion_side": 2, "faithfulness": True}
    folder = run(changed(config, **settings))
    curves = pd.read_csv(folder / "faithfulness.csv").groupby("map", sort=False)
    assert list(curves.groups) == ["Occlusion", "Attention received", "random", "centre"]
    whole = float(ModelOutput(subtype_model, 1)(tokens))
    for _, curve in curves:
        assert curve["share"].iloc[[0, -1]].tolist() == [0, 1]
        assert curve["deletion"].iloc[0] == pytest.approx(whole, rel=1e-4)
        assert curve["insertion"].iloc[-1] == pytest.approx(whole, rel=1e-4)
    areas = curves[["deletion", "insertion"]].mean()
    assert areas["deletion"].idxmin() == "Occlusion"
    assert areas["insertion"].idxmax() == "Occlusion"
    assert cv2.imread(str(folder / "faithfulness.png")).std() > 5


def test_a_missing_model_or_store_is_named(config, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        run(changed(config, model=tmp_path / "none"))
    with pytest.raises(StoreError, match="no store here"):
        run(changed(config, stores=tmp_path / "none.zarr"))


def test_a_baseline_without_an_encoder_is_refused(config, subtype_model, tmp_path):
    save_model(tmp_path / "baseline.safetensors", SlideModel(None, subtype_model.task, ("LUAD", "LUSC"), width=8))
    with pytest.raises(CheckpointError, match="no tokens to explain"):
        run(changed(config, model=tmp_path / "baseline.safetensors"))


def test_under_pseudonyms_no_file_names_the_slide(saved, save_store, tmp_path, monkeypatch):
    titles, overlay = [], files.overlay
    monkeypatch.setattr(files, "overlay", lambda *given, **more: titles.append(given[4]) or overlay(*given, **more))
    slide, key = "TCGA-05-4384-01Z-00-DX1", tmp_path / "key"
    store = save_store(slide, [[0, 0], [1, 1], [2, 3]])
    config = ExplainConfig(
        model=saved["subtype"], stores=store.path, out=tmp_path / "out", device="cpu", pseudonyms=key
    )
    folder = run(changed(config, methods=("contribution",), faithfulness=True))
    name = Pseudonyms.read(key).of(slide)
    assert folder.name == name
    assert titles[0].startswith(f"{name}: P(")
    for path in tmp_path.joinpath("out").rglob("*"):
        assert b"TCGA" not in str(path.relative_to(tmp_path)).encode() + (path.read_bytes() if path.is_file() else b"")
    before = (folder / "explanation.json").stat().st_mtime_ns
    assert run(changed(config, methods=("contribution",), faithfulness=True)) == folder  # the same again: nothing to do
    assert (folder / "explanation.json").stat().st_mtime_ns == before
    found = find(ViewConfig(source=tmp_path / "out", stores=tmp_path, pseudonyms=key))
    assert dict(found.stores) == {name: store.path}


def test_a_model_that_was_trained_at_another_scale_is_refused(config, subtype_model):
    subtype_model.encoder.trained_on = StoreScale(mpp=1.0, tile_px=64)
    save_model(config.model, subtype_model)
    with pytest.raises(StoreError, match="was trained on tiles of 64 pixels at 1 um per pixel"):
        run(config)
    assert not config.out.exists()


def test_tiles_that_are_no_lattice_are_refused(config):
    document = config.stores / "zarr.json"
    document.write_text(document.read_text().replace('"lattice": true', '"lattice": false'))
    with pytest.raises(StoreError, match="its tiles are not cells of one grid") as error:
        explain_slide(config)
    assert error.value.where == config.stores


def test_patches_that_are_left_out_have_no_scores_and_no_colour(config, save_store, subtype_model, tmp_path):
    mask = np.zeros((32, 40), np.uint8)
    mask[:, np.arange(40) % 8 < 5] = 1  # three of four columns of patches of each tile have at least half tissue
    store = save_store("edge", [[3, 1], [0, 4], [0, 0], [2, 2]], overview_mask=mask)
    subtype_model.encoder.config = subtype_model.encoder.config.model_copy(
        update={"input": subtype_model.encoder.config.input.model_copy(update={"min_tissue": 0.5})}
    )
    save_model(tmp_path / "tissue.safetensors", subtype_model)
    folder = run(changed(config, model=tmp_path / "tissue.safetensors", stores=store.path, faithfulness=True))
    _, table = read(folder)
    assert len(table) == 4 * 4 * 3
    assert set(table["column"] % 4) == {0, 1, 2}
    assert np.isfinite(tifffile.imread(folder / "heatmap_contribution.ome.tif")).sum() == 48
    assert (folder / "tiles_contribution.png").is_file()
    assert (folder / "faithfulness.csv").is_file()


def test_a_model_of_normalised_colours_explains_them_without_being_asked(config, store, subtype_model, tmp_path):
    made = subtype_model.encoder.config
    normal = made.model_copy(update={"input": made.input.model_copy(update={"stain": "reinhard"})})
    plain = read(run(config))[1]["contribution"]
    subtype_model.encoder.config = normal
    save_model(tmp_path / "normal.safetensors", subtype_model)
    document, scores = read(run(changed(config, model=tmp_path / "normal.safetensors", out=tmp_path / "normal")))
    with torch.no_grad():
        output_O = subtype_model.eval()(slide_tokens(store, normal.input))[0]
    expected = subtype_model.task.predictions(output_O, subtype_model.classes)
    assert document["prediction"] == pytest.approx(expected, abs=1e-5)
    assert not np.allclose(scores["contribution"], plain, atol=1e-3)
