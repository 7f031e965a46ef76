"""Golden tensors of the official code, and slides as grids of patches."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from longvit.tokens.batch import TokenBatch

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Golden:
    config: dict
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name.removeprefix("w."): x for name, x in self.tensors.items() if name.startswith("w.")}


@cache
def _golden(name: str) -> Golden:
    path = GOLDEN / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        return Golden(json.loads(file.metadata()["config"]), load_file(path))


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    return _golden


@pytest.fixture
def golden_names() -> set[str]:
    return {path.stem for path in GOLDEN.glob("*.safetensors")}


@pytest.fixture
def slide() -> Callable[[Tensor], TokenBatch]:
    """Image (1, 3, H, W) uint8 -> all its patches of 32 pixels, row by row."""

    def patches(u8: Tensor) -> TokenBatch:
        x = u8.unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5)
        rows, columns = x.shape[1:3]
        rc = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        return TokenBatch(x.flatten(3).flatten(1, 2), rc[None], torch.ones(1, rows * columns).bool())

    return patches


@pytest.fixture
def random_slide() -> Callable[[int, int], TokenBatch]:
    """(tokens, seed) -> scattered patches of 32 pixels."""

    def patches(tokens: int, seed: int) -> TokenBatch:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(256, (1, tokens, 3072), generator=generator, dtype=torch.uint8)
        rc = torch.randint(1000, (1, tokens, 2), generator=generator)
        return TokenBatch(x, rc, torch.ones(1, tokens).bool())

    return patches
