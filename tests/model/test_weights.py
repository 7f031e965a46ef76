import json
import struct

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import save_file
from torch import nn

from longvit.model.weights import TensorSpec, Weights, existing, is_plain, open_weights, weights_of
from preprocessing.errors import CheckpointError

STATE = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}


def linear() -> nn.Linear:
    return nn.Linear(2, 1)


def refused(state: dict[str, torch.Tensor]) -> CheckpointError:
    with pytest.raises(CheckpointError) as error:
        weights_of(state, "file").fill(linear)
    assert error.value.where == "file"
    return error.value


def test_a_module_is_filled_and_ready_to_use():
    module = weights_of(STATE, "file").fill(linear)
    assert module(torch.tensor([10.0, 1.0])).item() == 15
    assert not module.training
    assert module.weight.device.type == "cpu"
    assert module.weight.data_ptr() != STATE["weight"].data_ptr()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": torch.ones(1, 3)}, "weight is (1, 3), expected (1, 2)"),
        ({"bias": torch.ones(1, dtype=torch.int64)}, "bias is int64, expected floats"),
        ({"bias": torch.ones(1).to_sparse()}, "bias is not dense (torch.sparse_coo, cpu), expected floats"),
        ({"weight": torch.ones(1).expand(1, 2)}, "weight is not dense (torch.strided, cpu), expected floats"),
        ({"more": torch.ones(4)}, "more (4,) is not a tensor of this model"),
        ({"bias": torch.tensor([float("nan")])}, "bias holds NaN or infinity"),
        ({"weight": torch.tensor([[1.0, float("inf")]])}, "weight holds NaN or infinity"),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes, said):
    assert refused(STATE | changes).what == f"the weights do not fit the model: {said}"


def test_a_missing_tensor_is_named():
    assert refused({"weight": STATE["weight"]}).what.endswith("bias is missing, expected (1,)")


def test_nothing_is_read_before_names_and_shapes_fit():
    def read(name: str) -> torch.Tensor:
        raise AssertionError(name)

    with pytest.raises(CheckpointError, match=r"weight is \(9, 9\), expected \(1, 2\)"):
        Weights({"weight": TensorSpec((9, 9)), "bias": TensorSpec((1,))}, read, "file").fill(linear)


def test_a_model_of_sizes_that_cannot_be_is_refused_without_its_memory():
    with pytest.raises(CheckpointError, match="describe a model that cannot be built"):
        weights_of(STATE, "file").fill(lambda: nn.Linear(2**40, 2**40))
    with pytest.raises(CheckpointError, match=r"weight is \(1, 2\), expected \(1048576, 1048576\)"):
        weights_of(STATE, "file").fill(lambda: nn.Linear(2**20, 2**20))  # 4 TB


def test_tensors_below_a_prefix_have_the_rest_of_their_names():
    below = weights_of({f"head.{name}": tensor for name, tensor in STATE.items()} | {"x": STATE["bias"]}, "f").below(
        "head."
    )
    assert set(below.specs) == {"weight", "bias"}
    assert below.read("bias").item() == 3
    assert below.fill(linear).bias.item() == 3


class Settings(BaseModel):
    """Settings of a model."""

    depth: int = 2
    lengths: tuple[float, ...] = ()


@pytest.mark.parametrize(
    "settings",
    [Settings(depth=3), Settings(lengths=(1, 2, 3)), Settings(lengths=(2.0**31,)), Settings(lengths=(float("nan"),))],
)
def test_settings_of_more_than_the_tensors_are_refused(settings):
    weights_of(STATE, "file").require_bounded(Settings(lengths=(1, 2.0**31 - 1)))
    with pytest.raises(CheckpointError, match="describe a model of more than its 2 tensors"):
        weights_of(STATE, "file").require_bounded(settings)


def test_a_file_is_opened_with_its_specs_and_metadata(tmp_path):
    save_file(STATE | {"count": torch.ones(2, dtype=torch.int32)}, tmp_path / "a.safetensors", {"about": "x"})
    with open_weights(tmp_path / "a.safetensors") as weights:
        assert dict(weights.specs) == {
            "weight": TensorSpec((1, 2)),
            "bias": TensorSpec((1,)),
            "count": TensorSpec((2,), "I32"),
        }
        assert weights.metadata == {"about": "x"}
        assert torch.equal(weights.read("weight"), STATE["weight"])


HEADER = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        struct.pack("<Q", 2**40),
        struct.pack("<Q", 2**21 + 1) + b" " * (2**21 + 9),
        struct.pack("<Q", len(HEADER)) + HEADER,
        struct.pack("<Q", len(HEADER)) + HEADER[:-9],
    ],
    ids=["empty", "zip", "header beyond the file", "header too large", "no data", "cut short"],
)
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with (
        pytest.raises(CheckpointError, match="not safetensors, or is cut short") as error,
        open_weights(tmp_path / "a.safetensors"),
    ):
        pass
    assert error.value.where == tmp_path / "a.safetensors"


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    (tmp_path / "a").touch()
    assert existing(str(tmp_path / "a")) == tmp_path / "a"
    for path in (tmp_path / "b", tmp_path):
        with pytest.raises(CheckpointError, match="does not exist"):
            existing(path)


def test_a_tensor_without_memory_of_its_own_is_not_plain():
    assert is_plain(torch.ones(3))
    assert is_plain(torch.ones(3, 3)[:, 0])
    assert not is_plain(torch.ones(1).expand(5))
    assert not is_plain(torch.ones(3).to_sparse())
    assert not is_plain(torch.ones(3, device="meta"))
