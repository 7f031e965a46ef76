"""The lock with hashes, the answer of pip-audit, and the bill of materials."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

A, B = "a" * 64, "b" * 64
REPORT = {
    "install": [
        {"metadata": {"name": "longvit", "version": "0.1.0"}, "download_info": {"url": "file:.", "dir_info": {}}},
        {
            "metadata": {"name": "PyYAML", "version": "6.0.3"},
            "download_info": {"url": "https://index.example/p.whl", "archive_info": {"hashes": {"sha256": B}}},
        },
        {
            "metadata": {"name": "antlr4_python3.runtime", "version": "4.9.3"},
            "download_info": {"url": "file:///wheels/a.whl", "archive_info": {"hashes": {"sha256": A}}},
        },
    ]
}
LOCK = f"""# The versions that CI runs, made by `make lock`. Hashes are those of the files for:
# CPython 3.11, Linux x86_64
antlr4-python3-runtime==4.9.3 \\
    --hash=sha256:{A}
pyyaml==6.0.3 \\
    --hash=sha256:{B}
"""
# Written by hand in the format that pip-audit 2.x documents: `pip-audit --requirement ... --format json`.
ANSWER = {
    "dependencies": [
        {"name": "numpy", "version": "2.4.6", "vulns": []},
        {
            "name": "pillow",
            "version": "9.0.0",
            "vulns": [
                {
                    "id": "PYSEC-2022-168",
                    "fix_versions": ["9.0.1"],
                    "aliases": ["CVE-2022-24303", "GHSA-9j59-75qj-795w"],
                    "description": "Pillow before 9.0.1 allows attackers to delete files.",
                }
            ],
        },
        {"name": "left", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": [], "aliases": []}]},
        {"name": "ours", "skip_reason": "Dependency not found on PyPI"},
    ],
    "fixes": [],
}


@pytest.fixture(scope="module")
def supply(root) -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply_chain", root / ".ci" / "supply_chain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_report_of_pip_becomes_a_lock_without_its_addresses(supply):
    assert supply.lock(REPORT, "CPython 3.11, Linux x86_64") == LOCK


def test_elsewhere_the_versions_are_kept(supply):
    assert supply.versions(LOCK) == "antlr4-python3-runtime==4.9.3\npyyaml==6.0.3\n"


def test_a_recorded_answer_names_what_is_vulnerable_and_what_nobody_looked_up(root):
    command = [sys.executable, root / ".ci" / "supply_chain.py", "findings"]
    asked = subprocess.run(command, input=json.dumps(ANSWER), capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert asked.stdout.splitlines() == [
        "pillow 9.0.0: PYSEC-2022-168, CVE-2022-24303, GHSA-9j59-75qj-795w; take 9.0.1",
        "left 1: PYSEC-1; no version mends it yet",
        "ours was not looked up: Dependency not found on PyPI",
    ]
    sound = {"dependencies": ANSWER["dependencies"][:1]}
    asked = subprocess.run(command, input=json.dumps(sound), capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stdout) == (0, "no known vulnerability\n")


def test_the_bill_of_materials_is_that_of_the_lock(supply, root):
    bill = supply.sbom(LOCK, {"name": "longvit", "version": "0.1.0", "license": "MIT"})
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == "0.1.0"
    assert [one["purl"] for one in bill["components"]] == [
        "pkg:pypi/antlr4-python3-runtime@4.9.3",
        "pkg:pypi/pyyaml@6.0.3",
    ]
    assert bill["components"][1]["hashes"] == [{"alg": "SHA-256", "content": B}]
    assert set(bill["dependencies"][0]["dependsOn"]) == {one["bom-ref"] for one in bill["components"]}


def test_every_version_of_the_lock_has_a_hash_and_no_address(supply, root):
    text = (root / ".ci" / "constraints.txt").read_text(encoding="utf-8")
    pins = supply.PIN.findall(text)
    assert text == supply.lock(
        {
            "install": [
                {
                    "metadata": {"name": name, "version": version},
                    "download_info": {"archive_info": {"hashes": {"sha256": digest}}},
                }
                for name, version, digest in pins
            ]
        },
        text.splitlines()[1].removeprefix("# "),
    )
    assert "://" not in text


@pytest.fixture
def environment(root, tmp_path) -> Path:
    """A copy of the Makefile with an environment whose `pip install` only writes down what it was told."""
    if shutil.which("make") is None:
        pytest.skip("make is not on the path")
    (tmp_path / ".ci").mkdir()
    for name in ("Makefile", ".ci/supply_chain.py", "pyproject.toml"):
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -m ] || exec {sys.executable} "$@"\necho "$@" >> asked.txt\n[ ! -e refuse ]\n'
    )
    python.chmod(0o755)
    return tmp_path


HASHED = ["--require-hashes --requirement .ci/constraints.txt", "--no-deps --no-build-isolation --editable ."]


@pytest.mark.parametrize(
    ("made_for", "arguments", "asked"),
    [
        (None, [], HASHED),
        ("CPython 3.99, Plan9 vax", [], ["--constraint .venv/versions.txt --editable .[all]"]),
        (None, ["CONSTRAINTS="], ["--editable .[all]"]),
    ],
)
def test_hashed_requirements_come_first_and_other_machines_take_the_versions(
    supply, environment, made_for, arguments, asked
):
    lock = supply.lock(REPORT, made_for or supply.this_platform())
    (environment / ".ci" / "constraints.txt").write_text(lock)
    subprocess.run(["make", ".venv/.installed", *arguments], cwd=environment, check=True, capture_output=True)
    pip = "-m pip install --quiet --disable-pip-version-check"
    assert (environment / "asked.txt").read_text().splitlines() == [f"{pip} {words}" for words in asked]
    assert (environment / ".venv" / "versions.txt").exists() == (made_for is not None)


def test_a_hash_that_differs_stops_the_installation(supply, environment):
    (environment / ".ci" / "constraints.txt").write_text(supply.lock(REPORT, supply.this_platform()))
    (environment / "refuse").touch()
    made = subprocess.run(["make", ".venv/.installed"], cwd=environment, check=False, capture_output=True)
    assert made.returncode != 0
    assert len((environment / "asked.txt").read_text().splitlines()) == 1
    assert not (environment / ".venv" / ".installed").exists()
