import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from longvit.config import (
    CoxTask,
    EmbeddingInput,
    EncoderConfig,
    ExecutionConfig,
    FinetuneConfig,
    NllTask,
    PixelInput,
    SubtypeTask,
)
from longvit.finetuning.build import build_model
from longvit.model import LongViT, save_encoder
from longvit.model.predictor import SlideHead, SlideModel, load_model, save_model
from longvit.tokens import TokenBatch
from preprocessing.errors import CheckpointError, ConfigError


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


def test_a_discrete_time_model_has_an_output_for_each_bin(tiny_encoder, random_slide):
    assert SlideModel(LongViT(tiny_encoder), NllTask(bins=5), ())(random_slide(5, 0)).shape == (1, 5)


def test_padding_does_not_change_the_output_where_attention_pools(tiny_encoder, random_slide):
    torch.manual_seed(0)
    model = SlideModel(LongViT(tiny_encoder), CoxTask(), (), "attention").eval()
    for weight in (model.head.linear.weight, model.attention.score.weight):
        torch.nn.init.normal_(weight)
    short, long = random_slide(5, 0), random_slide(40, 1)
    apart = torch.cat([model(short), model(long)])
    assert_close(model(TokenBatch.collate([short, long])), apart, rtol=1e-4, atol=1e-4)  # outputs of 1 to 10


def test_an_untrained_attention_gives_what_the_mean_gives(tiny_encoder, random_slide):
    encoder = LongViT(tiny_encoder).eval()
    by_attention = SlideModel(encoder, CoxTask(), (), "attention")
    assert_close(by_attention.represent(random_slide(9, 0)), encoder.represent(random_slide(9, 0)))


def test_a_model_without_an_encoder_takes_vectors_or_their_mean():
    model, vectors = SlideModel(None, CoxTask(), (), width=3), torch.randn(1, 6, 3)
    assert_close(model.represent(vectors), vectors.mean(dim=1))
    assert_close(model.represent(vectors[:, 0]), vectors[:, 0])


def test_a_model_without_an_encoder_says_so_where_tokens_are_given_or_no_width_is(random_slide):
    model = SlideModel(None, CoxTask(), (), width=3)
    with pytest.raises(CheckpointError, match="no encoder"):
        model.encode(random_slide(9, 0))
    with pytest.raises(ValueError, match="width"):
        SlideModel(None, CoxTask(), ())


def test_drop_path_is_that_of_this_training_and_the_weights_those_of_the_checkpoint(config, tiny_encoder, tmp_path):
    given = LongViT(tiny_encoder)
    save_encoder(tmp_path / "encoder.safetensors", given)
    values = config.model_dump(exclude={"encoder"}) | {"checkpoint": tmp_path / "encoder.safetensors"}
    for share, expected in ((None, 0.2), (0.0, 0.0), (0.5, 0.5)):
        encoder = build_model(FinetuneConfig(**values | {"drop_path": share}), ("a", "b")).encoder
        assert encoder.config.drop_path == expected
        assert encoder.encoder.layers[-1].drop_path == expected
        assert all(torch.equal(weight, given.state_dict()[name]) for name, weight in encoder.state_dict().items())


def test_segments_are_those_of_this_training_one_for_each_branch(config, random_slide):
    torch.manual_seed(0)
    near = build_model(config, ("a", "b"))
    torch.manual_seed(0)
    far = build_model(config.model_copy(update={"segment_lengths": (16, 256)}), ("a", "b"))
    assert far.encoder.config.segment_lengths == (16, 256)
    assert all(torch.equal(weight, near.state_dict()[name]) for name, weight in far.state_dict().items())
    slide = random_slide(200, 0)
    assert not torch.allclose(near.eval().encoder(slide), far.eval().encoder(slide), atol=1e-3)
    with pytest.raises(ConfigError, match="1 segment lengths for 2 branches"):
        build_model(config.model_copy(update={"segment_lengths": (16,)}), ("a", "b"))


def test_the_least_tissue_of_a_patch_is_that_of_this_training(config, tiny_encoder, tmp_path):
    save_encoder(tmp_path / "encoder.safetensors", LongViT(tiny_encoder))
    asked = config.model_copy(update={"checkpoint": tmp_path / "encoder.safetensors", "min_tissue": 0.25})
    made = build_model(asked, ("a", "b")).encoder.config
    assert made == tiny_encoder.model_copy(update={"input": PixelInput(patch_px=16, min_tissue=0.25)})
    assert build_model(asked.model_copy(update={"encoder": made}), ("a", "b")).encoder.config == made
    of_tiles = tiny_encoder.model_copy(update={"input": EmbeddingInput(encoder="e", dim=8)})
    with pytest.raises(ConfigError, match="the encoder reads embeddings of whole tiles") as refused:
        build_model(config.model_copy(update={"encoder": of_tiles, "min_tissue": 0.25}), ("a", "b"))
    assert "tile --min-tissue" in refused.value.fix


def test_the_stain_is_that_of_this_training_and_is_saved_with_the_encoder(config, tiny_encoder, tmp_path):
    save_encoder(tmp_path / "encoder.safetensors", LongViT(tiny_encoder))
    asked = config.model_copy(update={"checkpoint": tmp_path / "encoder.safetensors", "stain": "macenko"})
    made = build_model(asked.model_copy(update={"min_tissue": 0.25}), ("a", "b"))
    assert made.encoder.config.input == PixelInput(patch_px=16, min_tissue=0.25, stain="macenko")
    save_model(tmp_path / "model.safetensors", made)
    assert load_model(tmp_path / "model.safetensors").encoder.config.input.stain == "macenko"
    save_encoder(tmp_path / "normal.safetensors", made.encoder)
    kept, undone = (
        build_model(
            config.model_copy(
                update={"checkpoint": tmp_path / "normal.safetensors", "encoder": EncoderConfig(), "stain": stain}
            ),
            ("a", "b"),
        )
        for stain in (None, "none")
    )
    assert (kept.encoder.config.input.stain, undone.encoder.config.input.stain) == ("macenko", "none")
    of_tiles = tiny_encoder.model_copy(update={"input": EmbeddingInput(encoder="e", dim=8)})
    with pytest.raises(ConfigError, match="the encoder reads embeddings of whole tiles") as refused:
        build_model(config.model_copy(update={"encoder": of_tiles, "stain": "reinhard"}), ("a", "b"))
    assert (refused.value.where, "embeddings of normalised tiles" in refused.value.fix) == ("stain", True)


def test_the_encoder_is_computed_as_the_execution_says(config):
    execution = ExecutionConfig(recompute="blocks")
    assert build_model(config.model_copy(update={"execution": execution}), ("a", "b")).encoder.execution == execution


def test_no_more_blocks_are_trained_than_there_are(config):
    with pytest.raises(ConfigError, match="3 blocks are to be trained, but the encoder has only 2"):
        build_model(config.model_copy(update={"trained_blocks": 3}), ("a", "b"))
    assert build_model(config.model_copy(update={"trained_blocks": 2}), ("a", "b")).encoder.config.depth == 2


def test_weights_of_classes_bins_and_pooling_are_saved_with_the_model(tiny_encoder, random_slide, tmp_path):
    subtype = SlideModel(LongViT(tiny_encoder), SubtypeTask(class_weights="balanced"), ("a", "b"), "attention").eval()
    subtype.statistics = {"class_weights": (0.7, 1.75)}
    survival = SlideModel(None, NllTask(alpha=0.3), (), width=7)
    survival.statistics = {"bin_edges": (1.1, 2.2, 3.3)}
    for model in (subtype, survival):
        torch.nn.init.normal_(model.head.linear.weight)
        save_model(tmp_path / "model.safetensors", model)
        loaded = load_model(tmp_path / "model.safetensors")
        assert (loaded.statistics, loaded.pooling, loaded.width) == (model.statistics, model.pooling, model.width)
        item = torch.randn(1, 4, model.width)
        assert torch.equal(loaded(item), model(item))


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
    rewrite(path, lambda state: {k: v for k, v in state.items() if k != "head.mean"}, {})


def rewrite(path, change, settings: dict) -> None:
    """The same model with other tensors and settings."""
    state = load_file(path)
    with safe_open(path, "pt") as file:
        known = json.loads(file.metadata()["longvit_model"])
    save_file(change(state), path, {"longvit_model": json.dumps(known | settings)})


def with_settings(**settings):
    def make(path, model) -> None:
        save_model(path, model)
        rewrite(path, lambda state: state, settings)

    return make


def with_std(value: float):
    def make(path, model) -> None:
        save_model(path, model)
        rewrite(path, lambda state: state | {"head.std": torch.full_like(state["head.std"], value)}, {})

    return make


def write_unknown_settings(path, model) -> None:
    save_file(model.state_dict(), path, {"longvit_model": json.dumps({"encoder": {"colour": "blue"}})})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path, model: None, "the checkpoint does not exist"),
        (damage, "not safetensors"),
        (strip, "not a model with a head"),
        (lose_a_tensor, "head.mean is missing"),
        (write_unknown_settings, "settings do not describe a model of this version"),
        (with_settings(classes=None), "settings do not describe a model of this version"),
        (with_settings(classes=["a", "a"]), "settings do not describe a model of this version"),
        (with_settings(task="junk"), "settings do not describe a model of this version"),
        (with_settings(task={"kind": "cox"}), "settings do not describe a model of this version"),
        (with_settings(class_weights=[1.0] * 10**5), "settings do not describe a model of this version"),
        (with_settings(bin_edges=[1.0]), "settings do not describe a model of this version"),
        (with_settings(statistics={"of another task": [1.0]}), "settings do not describe a model of this version"),
        (with_settings(pooling="attention"), "attention.mean is missing"),
        (with_settings(width=10**12, encoder=None), "describe a model"),
        (with_settings(classes=[str(i) for i in range(10**4)]), "describe a model"),
        (with_std(0.0), "the deviation of a channel is not positive"),
        (with_std(float("nan")), "head.std holds NaN"),
    ],
)
def test_a_file_that_is_no_model_is_refused(model, tmp_path, make, sentence):
    path = tmp_path / "model.safetensors"
    make(path, model)
    with pytest.raises(CheckpointError, match=sentence) as error:
        load_model(path)
    assert error.value.where == path
