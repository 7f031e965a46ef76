"""Description of the machine of a measurement, without the names of machine or user."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

OURS = ("imagecodecs", "numpy", "opencv-python-headless", "openslide-bin", "pillow", "simplejpeg", "tifffile", "zarr")
PEER = ("hs2p", "cucim-cu12", "numpy", "pyturbojpeg")
ASK = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def describe(libraries: tuple[str, ...] = OURS, peer: Path | None = None) -> list[str]:
    """Return date, command, machine and versions of libraries, also of a peer whose Python is `peer`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return [
        f"{date.today().isoformat()}, commit {_commit()}",
        f"Command: `{_command()}`",
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB; load before the run {os.getloadavg()[0]:.1f}",
        f"Ours: Python {platform.python_version()}, {_versions(sys.executable, libraries)}",
        *([f"Peer: {_versions(peer, PEER)}"] if peer else []),
    ]


def _versions(python: str | Path, names: tuple[str, ...]) -> str:
    answer = subprocess.run([str(python), "-c", ASK, *names], capture_output=True, text=True, check=True).stdout
    return ", ".join(f"{name} {version}" for name, version in json.loads(answer).items())


def _command() -> str:
    """Return the command with files by name only, also in NAME=FILE."""
    parts = (part.rpartition("=") for part in sys.argv)
    return shlex.join(["python", *(f"{before}{equals}{Path(last).name}" for before, equals, last in parts)])


def _commit() -> str:
    command = [shutil.which("git") or "true", "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return found.stdout.strip() or "unknown"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
