"""One list of dependencies: pyproject.toml. What else names them agrees with it."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from longvit.runs.folder import provenance

NOT_IMPORTED = {
    "openslide-bin": "the library behind openslide-python",
    "torchvision": "lightly and timm import it, and its build must be of the same index as torch's",
}


def plain(name: str) -> str:
    """The name of a distribution as indices compare it, without versions and extras."""
    return re.split(r"[\[<>=!~; ]", name, maxsplit=1)[0].lower().replace("_", "-")


@pytest.fixture(scope="module")
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def imported(trees) -> set[str]:
    """Distributions that the two packages import, anywhere in a file."""
    names = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute"
                names.add(node.module.split(".")[0])
    outside = names - sys.stdlib_module_names - {"longvit", "preprocessing"}
    owner = packages_distributions()
    return {plain(owner[name][0]) for name in outside}


def test_what_is_imported_is_declared(project, imported):
    assert imported - {plain(name) for name in project["dependencies"]} == set()


def test_what_is_declared_is_imported(project, imported):
    assert {plain(name) for name in project["dependencies"]} - imported == set(NOT_IMPORTED)


def test_the_constraints_name_every_dependency_once(root, project):
    text = (root / ".ci" / "constraints.txt").read_text(encoding="utf-8")
    named = re.findall(r"^([\w.-]+)==[\w.+!]+ \\$", text, re.MULTILINE)
    declared = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {plain(name) for name in declared} - set(named) == set()
    assert len(named) == len(set(named))


def test_the_conda_environment_has_no_list_of_its_own(root, project):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert environment["name"] == project["name"]
    assert conda == [f"python {project['requires-python']}", "pip"]
    assert pip == {"pip": ["-e .[all]"]}
    assert project["optional-dependencies"]["all"] == ["longvit[parquet,test]"]


def test_the_readme_names_the_two_commands_of_the_makefile(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in text
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_version_is_written_once(project):
    import longvit

    assert longvit.__version__ == project["version"]


def test_the_provenance_of_a_run_names_libraries_that_are_declared(project):
    assert set(provenance("tile")["libraries"]) <= {plain(name) for name in project["dependencies"]}


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory) -> Path:
    """Python of an environment with the wheel alone; what the package needs it borrows from the one that runs this."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("longvit", "preprocessing", "configs"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", *folder.glob("*.whl")], check=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_an_installation_has_every_file_of_the_packages_and_every_config(installed, root):
    (packages,) = (installed.parents[1] / "lib").glob("python*/site-packages")
    homes = {"longvit": packages, "preprocessing": packages, "configs": installed.parents[1] / "share" / "longvit"}
    for folder, home in homes.items():
        files = [path for path in (root / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        files = [path for path in files if path.parent != root / folder or path.suffix != ".md"]  # read in a checkout
        files = [path for path in files if path.parent.name != "decisions"]
        assert len(files) > 20
        assert [path for path in files if not (home / path.relative_to(root)).is_file()] == []


def test_an_installation_finds_the_settings_of_the_demo(installed, tmp_path):
    code = (
        "import longvit.demo as demo; from longvit.config import DemoConfig; "
        "print(demo.__file__, demo.settings_folder(DemoConfig()).resolve(), sep='\\n')"
    )
    command = [installed, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    environment = str(installed.parents[1])
    assert [line.startswith(environment) for line in said.splitlines()] == [True, True]
