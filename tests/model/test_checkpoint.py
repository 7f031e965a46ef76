import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from longvit.model import PRESETS, LongViT, checkpoint, load_encoder, save_encoder
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
    assert "stray (2,) is not a tensor of this encoder" in error.value.what


def test_only_the_first_of_many_problems_are_named(saved):
    path, encoder = saved
    rewritten(path, lambda state: {"stray": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=f"and {len(encoder.state_dict()) - 4} more"):
        load_encoder(path)


def test_every_preset_comes_back_with_its_config(tmp_path):
    config = PRESETS["gigapath_slide_enc12l768d"].model_copy(update={"width": 32, "depth": 1})
    save_encoder(tmp_path / "encoder.safetensors", LongViT(config))
    assert load_encoder(tmp_path / "encoder.safetensors").config == config
