"""Models with weights in their heads, and a store whose tiles are not in raster order."""

from pathlib import Path

import pytest
import torch

from longvit.config import CoxTask, EncoderConfig, SubtypeTask
from longvit.finetuning.model import SlideModel, save_model
from longvit.model import LongViT
from preprocessing.store import PatchStore

PLACES = [[3, 1], [0, 4], [0, 0], [2, 2]]


def trained(encoder: EncoderConfig, task: SubtypeTask | CoxTask, classes: tuple[str, ...]) -> SlideModel:
    torch.manual_seed(0)
    model = SlideModel(LongViT(encoder), task, classes).eval()
    model.head.standardise_by(torch.randn(20, encoder.width) * 3 + 1)
    torch.nn.init.normal_(model.head.linear.weight)
    torch.nn.init.normal_(model.head.linear.bias)
    return model


@pytest.fixture
def subtype_model(tiny_encoder) -> SlideModel:
    return trained(tiny_encoder, SubtypeTask(), ("LUAD", "LUSC"))


@pytest.fixture
def survival_model(tiny_encoder) -> SlideModel:
    return trained(tiny_encoder, CoxTask(), ())


@pytest.fixture
def saved(tmp_path, subtype_model, survival_model) -> dict[str, Path]:
    """The two models as files."""
    paths = {"subtype": tmp_path / "subtype.safetensors", "survival": tmp_path / "survival.safetensors"}
    save_model(paths["subtype"], subtype_model)
    save_model(paths["survival"], survival_model)
    return paths


@pytest.fixture
def store(save_store) -> PatchStore:
    return save_store("slide", PLACES)
