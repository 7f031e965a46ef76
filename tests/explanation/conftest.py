"""Models with weights in their heads, a store whose tiles are not in raster order, and finished runs of two folds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from longvit.config import (
    CoxTask,
    EncoderConfig,
    FinetuneConfig,
    FinetuneOptimiserConfig,
    NllTask,
    SubtypeTask,
    Task,
)
from longvit.explanation.files import file_names
from longvit.finetuning.finetune import run as finetune
from longvit.model import LongViT
from longvit.model.predictor import SlideModel, save_model
from longvit.tokens.read import slide_tokens
from preprocessing.store.store import PatchStore

PLACES = [[3, 1], [0, 4], [0, 0], [2, 2]]


def trained(encoder: EncoderConfig, task: Task, classes: tuple[str, ...], pooling: str = "encoder") -> SlideModel:
    torch.manual_seed(0)
    model = SlideModel(LongViT(encoder), task, classes, pooling).eval()
    model.head.standardise_by(torch.randn(20, encoder.width) * 3 + 1)
    torch.nn.init.normal_(model.head.linear.weight)
    torch.nn.init.normal_(model.head.linear.bias)
    if model.attention is not None:
        torch.nn.init.normal_(model.attention.score.weight, std=3)
    return model


@pytest.fixture
def subtype_model(tiny_encoder) -> SlideModel:
    return trained(tiny_encoder, SubtypeTask(), ("LUAD", "LUSC"))


@pytest.fixture
def survival_model(tiny_encoder) -> SlideModel:
    return trained(tiny_encoder, CoxTask(), ())


@pytest.fixture
def models(tiny_encoder, subtype_model, survival_model) -> dict[str, SlideModel]:
    """A model of every kind of task and of pooling."""
    by_class = {"class_token": True, "pooling": "class", "final_norm": "slide"}
    return {
        "subtype": subtype_model,
        "survival": survival_model,
        "nll": trained(tiny_encoder, NllTask(kind="nll"), ()),
        "attention": trained(tiny_encoder, SubtypeTask(), ("LUAD", "LUSC"), "attention"),
        "normed": trained(tiny_encoder.model_copy(update={"final_norm": "both"}), CoxTask(), ()),
        "class": trained(tiny_encoder.model_copy(update=by_class), SubtypeTask(), ("LUAD", "LUSC")),
    }


@pytest.fixture
def saved(tmp_path, models) -> dict[str, Path]:
    """The models as files."""
    paths = {name: tmp_path / f"{name}.safetensors" for name in models}
    for name, path in paths.items():
        save_model(path, models[name])
    return paths


@pytest.fixture
def store(save_store) -> PatchStore:
    return save_store("slide", PLACES)


@pytest.fixture
def tokens(store, subtype_model) -> Tensor:
    """The store's slide as it enters the blocks; the models' embeddings are the same."""
    with torch.no_grad():
        return subtype_model.encoder.embed(slide_tokens(store, subtype_model.encoder.config.input))[0]


@pytest.fixture(scope="session")
def runs(cohort, tiny_encoder, tmp_path_factory) -> dict[str, Path]:
    """A run of subtyping: a frozen encoder, slides by themselves; and one of survival: a patient's slides as one."""
    root = tmp_path_factory.mktemp("explained_runs")
    common = {"stores": cohort.stores, "table": cohort.table, "splits": cohort.splits, "encoder": tiny_encoder}
    common |= {"optimiser": FinetuneOptimiserConfig(epochs=2, learning_rate=1e-2), "loader_workers": 0, "device": "cpu"}
    finetune(FinetuneConfig(out=root / "subtype", trained_blocks=0, **common))
    finetune(FinetuneConfig(out=root / "cox", task=CoxTask(), fusion="early", **common))
    return {"subtype": root / "subtype", "cox": root / "cox"}


@pytest.fixture
def new(save_store, tmp_path) -> Path:
    """A folder with `stores` of slides N0 and N1 of the new patient Q and N2 of R, and their `table.csv`."""
    root = tmp_path / "new"
    (root / "stores").mkdir(parents=True)
    for k, place in enumerate(([[0, 0], [2, 0], [2, 1]], [[0, 0], [0, 1], [1, 1], [3, 4]], [[1, 1], [1, 2], [2, 2]])):
        tiles = np.random.default_rng(k).integers(60 * k, 255, (len(place), 64, 64, 3), np.uint8)
        save_store(f"N{k}", place, tiles).path.rename(root / "stores" / f"N{k}.zarr")
    (root / "table.csv").write_text("case_id,slide_id\nQ,N0\nQ,N1\nR,N2\n")
    return root


@pytest.fixture
def titles(monkeypatch) -> dict[str, str]:
    """The title of each slide's overlays, by slide; empty files take the place of pictures, which take seconds."""
    seen = {}

    def write(folder, explanation, one, *_, **__) -> None:
        seen[explanation.slide_id] = explanation.title
        for name in file_names(one.key):
            (folder / name).touch()

    monkeypatch.setattr("longvit.explanation.explain.write_files", write)
    return seen


@pytest.fixture
def settings(new, tmp_path) -> dict:
    """Settings of `explain` for the new slides, except the model."""
    return {
        "stores": new / "stores",
        "table": new / "table.csv",
        "out": tmp_path / "out",
        "methods": ("contribution", "received"),
        "device": "cpu",
    }
