"""Law: stores are the same under the oldest versions of zarr and numcodecs that the project admits."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLDEST = ("zarr", "numcodecs")
REST = ("google-crc32c", "imagecodecs", "numpy", "opencv-python-headless", "pydantic", "simplejpeg", "tifffile")
TESTS = ("store/test_hostile_stores.py", "store/test_schema.py")


def requirements() -> list[str]:
    """The lowest versions of `OLDEST`, any of the rest that they admit."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = {re.split("[>=<]", line)[0]: line for line in project["dependencies"]}
    return [listed[name].replace(">=", "==") for name in OLDEST] + [listed[name] for name in REST]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hostile_stores_are_refused_under_the_oldest_versions(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    tools = ["pytest", "pytest-timeout"]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements(), *tools]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode and "Connection" in installed.stderr:
        pytest.skip("packages cannot be fetched here")
    assert installed.returncode == 0, installed.stderr
    folder = ROOT / "tests" / "preprocessing"  # without the fixtures above it, which take torch
    options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "--import-mode=importlib", "--confcutdir", str(folder)]
    run = subprocess.run(
        [python, "-m", "pytest", *options, *(str(folder / name) for name in TESTS)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:]
    assert re.search(r"^\d{3,} passed", run.stdout.splitlines()[-1]), run.stdout[-500:]
