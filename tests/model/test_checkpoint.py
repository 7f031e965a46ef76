import json
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from longvit.config import ExecutionConfig, SubtypeTask
from longvit.model import PRESETS, LongViT, checkpoint, load_encoder, save_encoder
from longvit.model.predictor import SlideModel, load_model, save_model
from longvit.tokens.read import StoreScale
from preprocessing.errors import CheckpointError


@pytest.fixture
def saved(tmp_path):
    encoder = LongViT(PRESETS["longvit_tiny"])
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    return tmp_path / "encoder.safetensors", encoder


def same_weights(one: LongViT, other: LongViT) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def rewritten(path, change):
    """The same checkpoint with tensors changed and its config kept."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(change(load_file(path)), path, metadata=metadata)


def test_an_encoder_comes_back_from_its_file(saved, random_slide):
    path, encoder = saved
    loaded = load_encoder(path)
    assert loaded.config == encoder.config
    assert same_weights(loaded, encoder)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert not loaded.training
    assert all(weight.requires_grad for weight in loaded.parameters())
    assert torch.equal(loaded(random_slide(9, 0)), encoder.eval()(random_slide(9, 0)))


def test_a_write_that_fails_leaves_the_old_checkpoint(saved, monkeypatch):
    path, encoder = saved

    def full_disk(state, target, metadata):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_encoder(path, LongViT(PRESETS["longvit_tiny"]))
    assert same_weights(load_encoder(path), encoder)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist") as error:
        load_encoder(tmp_path / "gone.safetensors")
    assert error.value.where == tmp_path / "gone.safetensors"


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x10" + 40 * b"\0"])
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not safetensors"):
        load_encoder(path)


def test_a_file_cut_short_is_refused(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut short"):
        load_encoder(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"longvit_encoder_config": '{"wdth": 64}'}])
def test_weights_without_a_config_are_refused(tmp_path, metadata):
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="no encoder config"):
        load_encoder(path)


def test_tensors_that_do_not_fit_are_named_with_both_shapes(saved):
    path, _ = saved

    def change(state):
        del state["input.proj.bias"]
        return state | {"input.proj.weight": torch.zeros(64, 48), "stray": torch.zeros(2)}

    rewritten(path, change)
    with pytest.raises(CheckpointError) as error:
        load_encoder(path)
    assert "input.proj.weight is (64, 48), expected (64, 3072)" in error.value.what
    assert "input.proj.bias is missing, expected (64,)" in error.value.what
    assert "stray (2,) is not a tensor of this model" in error.value.what


def test_only_the_first_of_many_problems_are_named(saved):
    path, encoder = saved
    rewritten(path, lambda state: {f"stray{i}": torch.zeros(2) for i in range(10)})
    with pytest.raises(CheckpointError, match=f"and {len(encoder.state_dict()) + 5} more"):
        load_encoder(path)


def test_every_preset_comes_back_with_its_config(tmp_path):
    config = PRESETS["gigapath_slide_enc12l768d"].model_copy(update={"width": 32, "depth": 1})
    save_encoder(tmp_path / "encoder.safetensors", LongViT(config))
    assert load_encoder(tmp_path / "encoder.safetensors").config == config


def with_settings(path, **changes) -> None:
    """The same checkpoint with other settings."""
    state = load_file(path)
    with safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["longvit_encoder_config"])
    settings |= changes
    save_file(state, path, {"longvit_encoder_config": json.dumps(settings)})


def test_how_an_encoder_is_computed_is_not_saved_and_is_dropped_from_files_of_version_0_1(saved):
    path, encoder = saved
    encoder.execution = ExecutionConfig(heads_at_once=1)
    before = path.read_bytes()
    save_encoder(path, encoder)
    assert path.read_bytes() == before
    assert [name for name in ExecutionConfig.model_fields if name.encode() in before] == []
    with_settings(path, recompute="blocks", heads_at_once=1, tokens_at_once=10**30)
    loaded = load_encoder(path)
    assert (loaded.config, loaded.execution) == (encoder.config, ExecutionConfig())
    assert same_weights(loaded, encoder)


def test_a_model_with_a_head_of_version_0_1_opens_as_an_encoder_and_as_a_model(tmp_path):
    path = tmp_path / "model.safetensors"
    model = SlideModel(LongViT(PRESETS["longvit_tiny"]), SubtypeTask(), ("a", "b"))
    save_model(path, model)
    with safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["longvit_model"])
    assert settings["encoder"].keys() & ExecutionConfig.model_fields.keys() == set()
    settings["encoder"] |= {"recompute": "all_but_attention", "heads_at_once": 2, "tokens_at_once": 64}
    save_file(load_file(path), path, {"longvit_model": json.dumps(settings)})
    assert load_encoder(path).config == load_model(path).encoder.config == model.encoder.config


HUGE = {
    "depth": {"depth": 10**6},
    "depth no tensor has": {"depth": 10**30},
    "width": {"width": 20_000, "heads": 1},
    "width no tensor has": {"width": 4 * 10**30, "heads": 1},
    "position table": {"position": {"kind": "learned", "grid": 10**6}},
    "position table no tensor has": {"position": {"kind": "learned", "grid": 2**31 - 1}},
    "patches": {"input": {"kind": "pixels", "patch_px": 2**31 - 1}},
    "stem": {"input": {"kind": "pixels", "stem": [4] * 10**5}},
    "branches": {"segment_lengths": [64] * 10**5, "dilation_ratios": [1] * 10**5},
    "segments": {"segment_lengths": [10**30] * 3},
    "feed-forward": {"ffn_ratio": 1e300},
}


@pytest.mark.parametrize("changes", HUGE.values(), ids=HUGE)
def test_settings_of_a_model_larger_than_the_file_are_refused_before_it_is_built(saved, changes):
    path, _ = saved
    with_settings(path, **changes)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"describe a model|do not fit the model") as error:
        load_encoder(path)
    assert error.value.where == path
    assert time.process_time() - start < 2


def poisoned(kind):
    return lambda state: state | {"encoder.layers.0.ffn.fc1.bias": torch.full((256,), kind)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (poisoned(float("nan")), r"encoder.layers.0.ffn.fc1.bias holds NaN or infinity"),
        (poisoned(float("inf")), r"encoder.layers.0.ffn.fc1.bias holds NaN or infinity"),
        (poisoned(1), r"encoder.layers.0.ffn.fc1.bias is I64, expected floats"),
        (lambda state: {k: x.view(torch.int32) for k, x in state.items()}, r"input.proj.bias is I32, expected floats"),
    ],
    ids=["nan", "inf", "integers", "the same bytes as integers"],
)
def test_weights_that_are_not_finite_floats_are_refused_by_name(saved, change, words):
    path, _ = saved
    rewritten(path, change)
    with pytest.raises(CheckpointError, match=words):
        load_encoder(path)


@pytest.mark.parametrize("entry", ["[1,2]", "null", "3", '"', "[" * 10**5, '{"width": 1e400}', '{"depth": "\\u0000"}'])
@pytest.mark.parametrize("key", ["longvit_encoder_config", "longvit_model"])
def test_metadata_of_nonsense_is_refused(saved, key, entry):
    path, encoder = saved
    save_file(encoder.state_dict(), path, {key: entry})
    with pytest.raises(CheckpointError, match="metadata"):
        load_encoder(path)


def test_a_header_that_is_larger_than_any_of_ours_is_refused_before_it_is_read(saved):
    path, _ = saved
    with path.open("wb") as file:
        file.write((3 * 10**6).to_bytes(8, "little"))
        file.write(b"{" + b" " * 3 * 10**6)
    with pytest.raises(CheckpointError, match="a header of 3000000 bytes"):
        load_encoder(path)


def test_a_checkpoint_has_the_same_bytes_every_time(saved, tmp_path):
    _, encoder = saved
    encoder.trained_on = StoreScale(mpp=0.5, tile_px=256)
    contents = set()
    for i in range(20):  # safetensors writes two entries of metadata in an order drawn at random
        save_encoder(tmp_path / f"{i}.safetensors", encoder)
        contents.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(contents) == 1


def test_the_scale_that_an_encoder_was_trained_at_travels_with_it(saved):
    path, encoder = saved
    assert load_encoder(path).trained_on is None  # as in files of version 0.1.0
    encoder.trained_on = StoreScale(mpp=0.5, tile_px=256)
    save_encoder(path, encoder)
    assert load_encoder(path).trained_on == StoreScale(mpp=0.5, tile_px=256)


def test_the_encoder_of_a_finetuned_model_is_read_from_the_models_file(saved):
    path, encoder = saved
    encoder.trained_on = StoreScale(mpp=0.5, tile_px=256)
    save_model(str(path), SlideModel(encoder, SubtypeTask(), ("a", "b"), "attention"))
    loaded = load_encoder(str(path))
    assert same_weights(loaded, encoder)
    assert (loaded.config, loaded.trained_on) == (encoder.config, encoder.trained_on)
