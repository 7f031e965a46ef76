"""Models with weights in their heads, and a store whose tiles are not in raster order."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from longvit.config import CoxTask, EncoderConfig, NllTask, SubtypeTask, Task
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
