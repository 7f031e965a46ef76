"""The repository as text: its folder, its source files, and what their imports name."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("longvit", "preprocessing")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def sources() -> dict[str, str]:
    """Path from the root -> text of every file of the two packages."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 40
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


@pytest.fixture(scope="session")
def trees(sources) -> dict[str, ast.Module]:
    return {name: ast.parse(text) for name, text in sources.items()}


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """A function: run a line of code in an interpreter of its own, and what it prints."""

    def run(code: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    return run
