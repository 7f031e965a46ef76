"""Named tensors of a checkpoint: compared with a model before memory is taken, then copied into the model.

A file may be damaged or hostile. So only its header is read first. The names, shapes and types of the tensors limit the
size of the model that the file's own settings may request.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from preprocessing.errors import CheckpointError, few

_FLOATING = {"F64", "F32", "F16", "BF16"}
_MAX_HEADER = 2**21
"""Largest header, bytes: the names of 14,000 tensors."""
_MAX_NUMBER = 2**31 - 1

Module = TypeVar("Module", bound=nn.Module)


class TensorSpec(NamedTuple):
    """Shape of a tensor, and its type if it is not a floating-point type."""

    shape: tuple[int, ...]
    wrong_type: str | None = None


@dataclass(frozen=True)
class Weights:
    """Tensors by name, read one at a time.

    Args:
        specs: Shape and type of each tensor.
        read: Function from a name to its tensor.
        where: Source of the tensors, for errors.
        metadata: Texts in the file, next to the tensors.
    """

    specs: Mapping[str, TensorSpec]
    read: Callable[[str], Tensor]
    where: object
    metadata: Mapping[str, str] = field(default_factory=dict)

    def below(self, prefix: str) -> "Weights":
        """Return the tensors whose names begin with a prefix, with the prefix removed."""
        specs = {name.removeprefix(prefix): spec for name, spec in self.specs.items() if name.startswith(prefix)}
        return Weights(specs, lambda name: self.read(prefix + name), self.where)

    def require_bounded(self, settings: BaseModel) -> None:
        """Refuse settings with a list or a depth that these tensors cannot have, before modules are built for them.

        Raises:
            CheckpointError: The settings are of another model than the tensors.
        """
        most = len(self.specs)
        if not _bounded(settings.model_dump(), most):
            raise self.error(f"the file's settings describe a model of more than its {most} tensors")

    def fill(self, build: Callable[[], Module]) -> Module:
        """Build a module without memory, compare it with the tensors, and copy them into it.

        Args:
            build: Function that makes the module; its tensors must be exactly these tensors.

        Returns:
            The module, on the CPU and in evaluation mode.

        Raises:
            CheckpointError: Tensors are missing, left over, of another shape or type, or not finite; the message names
                the first few.
        """
        try:
            with torch.device("meta"):
                module = build()
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:  # sizes that no tensor can have
            raise self.error("the file's settings describe a model that cannot be built") from error
        self._refuse(_problems(module.state_dict(), self.specs))
        module.to_empty(device="cpu")
        strange = []
        for name, tensor in module.state_dict().items():
            tensor.copy_(self.read(name))
            strange += [] if tensor.isfinite().all() else [f"{name} holds NaN or infinity"]
        self._refuse(strange)
        return module.eval()

    def error(self, what: str) -> CheckpointError:
        """Return the error for a file whose settings and tensors do not match."""
        return CheckpointError(what, where=self.where, fix="copy the file again, or train it again with this version")

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise CheckpointError(
                f"the weights do not fit the model: {few(problems, separator='; ')}",
                where=self.where,
                fix="pass the preset or config that the weights were trained with, or copy the file again",
            )


@contextmanager
def open_weights(path: Path | str) -> Iterator[Weights]:
    """Open a safetensors file: its header is read now, its tensors on request.

    Raises:
        CheckpointError: The file is missing, not safetensors, or cut short.
    """
    path = existing(path)
    try:
        _require_header(path)
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            specs = {name: _spec(tensor.get_shape(), tensor.get_dtype()) for name, tensor in slices.items()}
            yield Weights(specs, file.get_tensor, path, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"the file is not safetensors, or is cut short ({error})",
            where=path,
            fix="pass a file that this program wrote, or copy it again; an official .pth goes through `load_official`",
        ) from error


def _require_header(path: Path) -> None:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > min(_MAX_HEADER, path.stat().st_size):
        raise SafetensorError(f"a header of {size} bytes")


def weights_of(state: Mapping[str, Tensor], where: object) -> Weights:
    """Return the tensors of a state dict as `Weights`."""
    specs = {name: TensorSpec(tuple(tensor.shape), _wrong_type(tensor)) for name, tensor in state.items()}
    return Weights(specs, state.__getitem__, where)


def existing(path: Path | str) -> Path:
    """Return the path if a file exists there.

    Raises:
        CheckpointError: The file does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("the checkpoint does not exist", where=path, fix="check the path")
    return path


def _spec(shape: list[int], dtype: str) -> TensorSpec:
    return TensorSpec(tuple(shape), None if dtype in _FLOATING else dtype)


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor has its own memory for each of its numbers."""
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _wrong_type(tensor: Tensor) -> str | None:
    if not tensor.is_floating_point():
        return str(tensor.dtype).removeprefix("torch.")
    return None if is_plain(tensor) else f"not dense ({tensor.layout}, {tensor.device.type})"


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, TensorSpec]) -> list[str]:
    """Return a message for every tensor that has another shape or type, is missing or is left over."""
    both = [(name, tensor, found[name]) for name, tensor in expected.items() if name in found]
    shapes = [f"{n} is {s.shape}, expected {tuple(x.shape)}" for n, x, s in both if s.shape != tuple(x.shape)]
    types = [f"{name} is {spec.wrong_type}, expected floats" for name, _, spec in both if spec.wrong_type]
    missing = [f"{name} is missing, expected {tuple(x.shape)}" for name, x in expected.items() if name not in found]
    extra = [
        f"{name} {spec.shape} is not a tensor of this model" for name, spec in found.items() if name not in expected
    ]
    return shapes + types + missing + extra


def _bounded(value: Any, most: int) -> bool:  # noqa: ANN401 - whatever settings hold
    """Return whether all numbers are finite and of moderate size, and depths and lists are at most `most`."""
    if isinstance(value, dict):
        parts = (part for name, part in value.items() if name != "missing_words")  # which build no module
        return value.get("depth", 0) <= most and all(_bounded(part, most) for part in parts)
    if isinstance(value, list | tuple):
        return len(value) <= most and all(_bounded(part, most) for part in value)
    return not isinstance(value, int | float) or -_MAX_NUMBER <= value <= _MAX_NUMBER
