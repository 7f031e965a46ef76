import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from longvit.config import EmbeddingInput, ExplainConfig
from longvit.explanation import run as explanation
from longvit.explanation import token_contributions
from longvit.explanation.run import run
from longvit.finetuning.model import SlideModel, save_model
from longvit.model import LongViT
from longvit.tokens.read import slide_tokens
from preprocessing.errors import CheckpointError, ConfigError, StoreError
from preprocessing.store import add_embeddings


@pytest.fixture
def config(saved, store, tmp_path) -> ExplainConfig:
    return ExplainConfig(model=saved["subtype"], store=store.path, out=tmp_path / "out", device="cpu")


def changed(config: ExplainConfig, **values) -> ExplainConfig:
    return config.model_copy(update=values)


@pytest.fixture
def drawn(monkeypatch) -> dict:
    """What is given to the picture."""
    seen, overlay = {}, explanation.overlay

    def watched(overview, grid, extent_px, title, label):
        seen.update(grid=grid, extent_px=extent_px, title=title, label=label)
        return overlay(overview, grid, extent_px, title, label)

    monkeypatch.setattr(explanation, "overlay", watched)
    return seen


def test_a_run_leaves_a_picture_and_a_table_of_tokens(config):
    path = run(config)
    assert path == config.out / "slide_heatmap.png"
    assert sorted(file.name for file in config.out.iterdir()) == ["slide_heatmap.png", "slide_tokens.csv"]
    assert cv2.imread(str(path)).std() > 5


@pytest.mark.parametrize("target", ["LUAD", "LUSC"])
def test_the_table_says_where_each_token_lies_and_what_it_gives(config, store, subtype_model, target):
    run(changed(config, target=target))
    table = pd.read_csv(config.out / "slide_tokens.csv")
    batch = slide_tokens(store, subtype_model.encoder.config.input)
    expected = token_contributions(subtype_model, batch, ["LUAD", "LUSC"].index(target))
    assert list(table) == ["x_l0", "y_l0", "row", "column", "score"]
    assert table[["row", "column"]].to_numpy().tolist() == batch.rc_BL2[0].tolist()
    np.testing.assert_allclose(table["score"], expected, atol=1e-6)
    # A tile is 64 store pixels and 128 of level 0; a token is 16 store pixels, so 32 of level 0.
    np.testing.assert_array_equal(table[["x_l0", "y_l0"]], table[["column", "row"]] * 32)


def test_the_picture_is_scaled_from_level_0_to_the_overview(config, store, drawn):
    run(config)
    # The slide is 5 x 4 tiles of 128 pixels, its overview 5 x 4 of 8: a token of 32 pixels covers 2 of the overview.
    assert store.overview.shape == (32, 40, 3)
    rows, columns = drawn["grid"].shape
    assert drawn["extent_px"] == (columns * 2, rows * 2)
    assert np.isfinite(drawn["grid"]).sum() == 64


def test_without_a_target_the_predicted_class_is_explained(config, store, subtype_model, drawn):
    with torch.no_grad():
        probability = subtype_model(slide_tokens(store, subtype_model.encoder.config.input))[0].softmax(0)
    name = ("LUAD", "LUSC")[int(probability.argmax())]
    run(config)
    assert drawn["title"] == f"slide: P({name}) = {probability.max():.2f}"
    assert drawn["label"] == f"share of the logit of {name}"


def test_a_survival_model_explains_its_log_hazard(config, saved, drawn):
    run(changed(config, model=saved["survival"]))
    assert "log hazard" in drawn["title"]
    assert drawn["label"] == "share of the log hazard"


def test_a_model_of_embeddings_explains_tiles(config, store, subtype_model, tiny_encoder, tmp_path, drawn):
    add_embeddings(store.path, "uni", np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), {})
    encoder = LongViT(tiny_encoder.model_copy(update={"input": EmbeddingInput(encoder="uni", dim=6)}))
    save_model(tmp_path / "tiles.safetensors", SlideModel(encoder, subtype_model.task, subtype_model.classes))
    run(changed(config, model=tmp_path / "tiles.safetensors"))
    assert drawn["grid"].shape == (4, 5)
    assert drawn["extent_px"] == (40, 32)


def test_a_class_that_the_model_has_not_is_refused_with_those_it_has(config):
    with pytest.raises(ConfigError, match="the model has no class MESO") as error:
        run(changed(config, target="MESO"))
    assert error.value.fix == "choose from LUAD, LUSC"
    assert not config.out.exists()


def test_a_survival_model_has_no_classes_to_choose_from(config, saved):
    with pytest.raises(ConfigError) as error:
        run(changed(config, model=saved["survival"], target="LUAD"))
    assert "leave target out" in error.value.fix


def test_a_missing_model_or_store_is_named(config, tmp_path):
    with pytest.raises(CheckpointError, match="the model does not exist"):
        run(changed(config, model=tmp_path / "none"))
    with pytest.raises(StoreError, match="no store here"):
        run(changed(config, store=tmp_path / "none"))


def test_a_model_whose_slide_vector_is_not_the_mean_of_its_tokens_is_refused(config, subtype_model, tmp_path):
    encoder = subtype_model.encoder.config.model_copy(update={"final_norm": "slide"})
    model = SlideModel(LongViT(encoder), subtype_model.task, subtype_model.classes)
    save_model(tmp_path / "normed.safetensors", model)
    with pytest.raises(CheckpointError, match="not the plain mean of its tokens"):
        run(changed(config, model=tmp_path / "normed.safetensors"))
    assert not config.out.exists()
