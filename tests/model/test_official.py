"""Published checkpoints, in files written here in their layout, and everything that can be wrong with such a file."""

import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from longvit.config import EmbeddingInput, EncoderConfig, LearnedPosition
from longvit.model import LongViT, load_official
from longvit.tokens.batch import TokenBatch
from preprocessing.errors import CheckpointError

LONGVIT = EncoderConfig(
    position=LearnedPosition(grid=8),
    width=48,
    depth=2,
    heads=4,
    segment_lengths=(16, 32, 64),
    dilation_ratios=(1, 2, 4),
    padding="zero_keys",
)
LAYOUTS = {  # key and prefix
    "DINO": ("teacher", "backbone."),
    "DINO, parallel": ("teacher", "module.backbone."),
    "fine-tuned": ("model", "model."),
    "fine-tuned with DeepSpeed": ("module", "model."),
}
OUTPUTS = {"class": ("slide", "out_cls"), "mean": ("both", "out_global_pool")}


def gigapath(case, pooling: str = "class") -> EncoderConfig:
    return EncoderConfig(
        input=EmbeddingInput(encoder="gigapath", dim=case.config["in_chans"]),
        width=case.config["embed_dim"],
        depth=case.config["depth"],
        heads=case.config["heads"],
        segment_lengths=case.config["segment_length"],
        dilation_ratios=case.config["dilated_ratio"],
        padding="zero_keys",
        class_token=True,
        final_norm=OUTPUTS[pooling][0],
        pooling=pooling,
    )


def same_weights(one: LongViT, other: LongViT) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def save(tmp_path) -> Callable[[object], Path]:
    def save(content: object) -> Path:
        torch.save(content, tmp_path / "published.pth")
        return tmp_path / "published.pth"

    return save


@pytest.mark.parametrize(("key", "prefix"), LAYOUTS.values(), ids=LAYOUTS)
def test_longvits_checkpoint_loads_in_every_layout_and_its_heads_stay_behind(golden, save, key, prefix):
    weights = golden("longvit_tiny").weights
    state = {prefix + name: x for name, x in weights.items()}
    state |= {f"{prefix}norm.weight": torch.ones(48), "fc_norm.weight": torch.ones(48)}
    state |= {"head.last_layer.weight_v": torch.ones(5, 8)}
    path = save({key: state, "epoch": 100, "optimizer": {"state": {}}, "args": Namespace(arch="vit_small")})
    assert same_weights(load_official(path, LONGVIT), load_official(weights, LONGVIT))


def test_the_teacher_is_taken_where_a_checkpoint_has_a_student_too(golden, save):
    weights = golden("longvit_tiny").weights
    student = {f"module.backbone.{name}": torch.zeros_like(x) for name, x in weights.items()}
    path = save({"student": student, "teacher": {f"backbone.{name}": x for name, x in weights.items()}})
    assert same_weights(load_official(path, LONGVIT), load_official(weights, LONGVIT))


@pytest.mark.parametrize("name", ["gigapath_tiny", "gigapath_tiny_optimal_segments"])
@pytest.mark.parametrize("pooling", OUTPUTS)
def test_gigapaths_checkpoint_gives_its_slide_vectors(golden, save, name, pooling):
    case = golden(name)
    encoder = load_official(save({"model": case.weights}), gigapath(case, pooling))
    rc = case["coords"].div(256, rounding_mode="floor").long().flip(-1)
    assert torch.equal(rc[..., 1] * case.config["slide_ngrids"] + rc[..., 0] + 1, case["pos_index"])
    with torch.no_grad():
        vector = encoder.represent(TokenBatch(case["x"], rc, torch.ones(rc.shape[:2]).bool()))
    assert_close(vector, case[OUTPUTS[pooling][1]], rtol=1e-4, atol=2e-5)


def test_gigapaths_fixed_table_is_computed_and_not_read(golden):
    case = golden("gigapath_tiny")
    with_table = load_official(case.weights | {"pos_embed": case["pos_embed"]}, gigapath(case))
    assert same_weights(with_table, load_official(case.weights, gigapath(case)))


def test_a_table_of_another_side_is_kept_and_stretched_as_the_preset_says(golden):
    config = LONGVIT.model_copy(update={"position": LearnedPosition(grid=32, stretch="load")})
    encoder = load_official(golden("longvit_tiny").weights, config)
    assert encoder.config.position == LearnedPosition(grid=8, stretch="load")


def test_weights_in_half_precision_are_loaded_as_float32(golden):
    half = {name: x.half() for name, x in golden("longvit_tiny").weights.items()}
    encoder = load_official(half, LONGVIT)
    assert {x.dtype for x in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.position.table, half["pos_embed"].float())


def test_a_loaded_model_shares_no_memory_with_the_state_dict(golden):
    weights = golden("longvit_tiny").weights
    encoder = load_official(weights, LONGVIT)
    assert torch.equal(encoder.position.table, weights["pos_embed"])
    assert encoder.position.table.data_ptr() != weights["pos_embed"].data_ptr()


def test_weights_of_another_size_are_refused(golden):
    with pytest.raises(CheckpointError, match=r"is \(48, 3072\), expected \(384, 3072\)"):
        load_official(golden("longvit_tiny").weights, "longvit_small_1024")


def test_weights_of_the_other_family_are_refused(golden):
    with pytest.raises(CheckpointError, match=r"input.proj.weight is \(48, 3072\), expected \(768, 1536\)") as error:
        load_official(golden("longvit_tiny").weights, "gigapath_slide_enc12l768d")
    assert "pass the preset" in error.value.fix


def test_missing_and_unexpected_tensors_are_named(golden):
    weights = {**golden("longvit_tiny").weights, "decoder.weight": torch.zeros(2)}
    del weights["patch_embed.proj.bias"]
    with pytest.raises(CheckpointError) as error:
        load_official(weights, LONGVIT)
    assert "input.proj.bias is missing, expected (48,)" in error.value.what
    assert "decoder.weight (2,) is not a tensor of this model" in error.value.what


def test_a_table_that_is_no_square_is_refused(golden):
    weights = golden("longvit_tiny").weights | {"pos_embed": torch.zeros(1, 65, 48)}
    with pytest.raises(CheckpointError, match=r"position.table is \(1, 65, 48\), expected \(1, 64, 48\)"):
        load_official(weights, LONGVIT)


def test_an_unknown_preset_lists_those_that_exist(golden):
    with pytest.raises(CheckpointError) as error:
        load_official(golden("longvit_tiny").weights, "longvit_large")
    assert "longvit_small_4096" in error.value.fix


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), {"epoch": 3}, {}, {"model": {}}, {"model": {3: torch.zeros(1)}}, [torch.zeros(1)]],
    ids=["a tensor", "no weights", "empty", "empty under its key", "numbers for names", "a list"],
)
def test_a_checkpoint_without_named_tensors_is_refused(save, content):
    with pytest.raises(CheckpointError, match="no tensors by name"):
        load_official(save(content), LONGVIT)


HOSTILE = {
    "one number for a billion": {"patch_embed.proj.weight": torch.zeros(1).expand(48, 3, 4096, 4096)},
    "sparse": {"patch_embed.proj.bias": torch.zeros(48).to_sparse()},
    "integers": {"patch_embed.proj.bias": torch.zeros(48, dtype=torch.int32)},
    "no memory": {"patch_embed.proj.bias": torch.zeros(48, device="meta")},
    "nan": {"patch_embed.proj.bias": torch.full((48,), torch.nan)},
    "a table of no dimension": {"pos_embed": torch.zeros(())},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_tensors_that_are_not_finite_floats_in_memory_of_their_own_are_refused(golden, save, changes):
    with pytest.raises(CheckpointError, match=r"do not fit the model|plain tensors"):
        load_official(save({"teacher": {**golden("longvit_tiny").weights, **changes}}), LONGVIT)


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(golden, save, tmp_path):
    path = save({"teacher": golden("longvit_tiny").weights})
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))
    with pytest.raises(CheckpointError, match="not a torch checkpoint of plain tensors"):
        load_official(str(tmp_path / "bomb.pth"), LONGVIT)


class RunsCode:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(save, capsys):
    with pytest.raises(CheckpointError, match="not a torch checkpoint of plain tensors"):
        load_official(save({"teacher": RunsCode()}), LONGVIT)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[:-100], lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"<html>"],
    ids=["its end is missing", "its half is missing", "empty", "a web page"],
)
def test_a_file_that_did_not_arrive_whole_is_refused(golden, save, damage):
    path = save({"teacher": golden("longvit_tiny").weights})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="cut short, or is not a torch checkpoint") as error:
        load_official(path, LONGVIT)
    assert error.value.where == path
    assert "download it again" in error.value.fix


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist") as error:
        load_official(tmp_path / "gone.pth", LONGVIT)
    assert error.value.where == tmp_path / "gone.pth"
