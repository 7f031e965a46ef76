import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from longvit.config import CoxTask
from longvit.finetuning.model import SlideHead, SlideModel, load_model, save_model
from longvit.model import LongViT, save_encoder
from longvit.tokens import TokenBatch
from preprocessing.errors import CheckpointError


def test_a_new_head_gives_every_class_the_same_logit(tiny_encoder, random_slide):
    head = SlideHead(tiny_encoder.width, 3)
    assert head(torch.randn(5, tiny_encoder.width)).eq(0).all()


def test_the_head_standardises_by_the_slides_it_was_given():
    torch.manual_seed(0)
    representations = torch.randn(50, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 7
    head = SlideHead(4, 4)
    head.standardise_by(representations)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(4))
    out = head(representations)
    assert_close(out.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    assert_close(out.std(dim=0, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    assert_close(head(representations[:1]), out[:1])  # independent of the batch


def test_a_feature_that_never_varies_does_not_blow_up():
    head = SlideHead(2, 1)
    head.standardise_by(torch.ones(3, 2))
    torch.nn.init.ones_(head.linear.weight)
    assert head(torch.ones(1, 2)).tolist() == [[0.0]]


def test_mean_and_deviation_are_saved_but_not_trained(model):
    assert {"head.mean", "head.std"} <= set(model.state_dict())
    assert not {"head.mean", "head.std"} & {name for name, _ in model.named_parameters()}


def test_padding_does_not_change_the_output_of_a_slide(model, random_slide):
    model.eval()
    short, long = random_slide(5, 0), random_slide(40, 1)
    assert_close(model(TokenBatch.collate([short, long])), torch.cat([model(short), model(long)]))


def test_a_survival_model_has_one_output(tiny_encoder, random_slide):
    assert SlideModel(LongViT(tiny_encoder), CoxTask(), ())(random_slide(5, 0)).shape == (1, 1)


@pytest.mark.parametrize(("task", "classes"), [(None, ("LUAD", "LUSC")), (CoxTask(time_column="days"), ())])
def test_a_saved_model_comes_back_whole(model, tiny_encoder, random_slide, tmp_path, task, classes):
    saved = SlideModel(LongViT(tiny_encoder), task or model.task, classes).eval()
    torch.nn.init.normal_(saved.head.linear.weight)
    saved.head.standardise_by(torch.randn(5, tiny_encoder.width))
    save_model(tmp_path / "model.safetensors", saved)
    loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.task, loaded.classes, loaded.encoder.config) == (saved.task, classes, tiny_encoder)
    assert torch.equal(loaded(random_slide(9, 0)), saved(random_slide(9, 0)))
    assert not loaded.training
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def damage(path, model) -> None:
    save_model(path, model)
    path.write_bytes(path.read_bytes()[:1000])


def strip(path, model) -> None:
    save_encoder(path, model.encoder)


def lose_a_tensor(path, model) -> None:
    save_model(path, model)
    state = load_file(path)
    settings = {
        "encoder": model.encoder.config.model_dump(mode="json"),
        "task": {"kind": "subtype"},
        "classes": ["a", "b"],
    }
    save_file({k: v for k, v in state.items() if k != "head.mean"}, path, {"longvit_model": json.dumps(settings)})


def write_unknown_settings(path, model) -> None:
    save_file(model.state_dict(), path, {"longvit_model": json.dumps({"encoder": {"colour": "blue"}})})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path, model: None, "the model does not exist"),
        (damage, "not a safetensors file"),
        (strip, "not a model with a head"),
        (lose_a_tensor, "does not fit"),
        (write_unknown_settings, "does not fit"),
    ],
)
def test_a_file_that_is_no_model_is_refused(model, tmp_path, make, sentence):
    path = tmp_path / "model.safetensors"
    make(path, model)
    with pytest.raises(CheckpointError, match=sentence) as error:
        load_model(path)
    assert error.value.where == path
