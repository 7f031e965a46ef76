"""Scripts of this folder, run as a user runs them, and the real tissue that the large slide is made of."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def measured() -> Callable[..., dict[str, Any]]:
    """(command...) -> result of `measure.py` for a command of our Python."""

    def run(*command: str | Path) -> dict[str, Any]:
        parts = [sys.executable, HERE / "measure.py", sys.executable, *command]
        out = subprocess.run(list(map(str, parts)), capture_output=True, text=True, check=False)
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout)

    return run


@pytest.fixture(scope="session")
def make_huge(tmp_path_factory) -> Callable[[int], Path]:
    """(side) -> a slide of that width and height, made by `huge_slide.py`."""
    texture = HERE.parents[1] / ".." / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
    if not texture.exists():
        pytest.skip("the slide with real tissue is not next to this checkout (../shared/data/slides)")

    def make(side: int) -> Path:
        out = tmp_path_factory.mktemp("huge") / "huge.svs"
        command = [sys.executable, HERE / "huge_slide.py", out, "--texture", texture, "--side", side]
        subprocess.run(list(map(str, command)), check=True)
        return out

    return make
