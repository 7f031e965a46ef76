"""Rules of the house that a reader would otherwise have to trust: lengths, documentation, no places of one machine."""

import ast
import doctest
import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import longvit.explanation
import preprocessing

MAX_FUNCTION, MAX_FILE = 60, 330
PUBLIC = ("longvit.tokens", "longvit.model", "longvit.evaluation")
MACHINE_PATH = re.compile(r"/(root|work|tmp)/")


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_function_is_longer_than_a_screen(trees):
    lengths = {f"{file}:{f.name}": f.end_lineno - f.lineno + 1 for file, tree in trees.items() for f in functions(tree)}
    assert len(lengths) > 200
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION} == {}


def test_no_file_is_longer_than_a_sitting(sources):
    lengths = {file: len(text.splitlines()) for file, text in sources.items()}
    assert {file: length for file, length in lengths.items() if length > MAX_FILE} == {}


def test_every_module_says_what_it_is(trees):
    assert [file for file, tree in trees.items() if not ast.get_docstring(tree)] == []


def exported(trees: dict[str, ast.Module], package: str) -> dict[str, str]:
    """Names that a package re-exports as `from module import name as name`, with their modules."""
    tree = trees[package.replace(".", "/") + "/__init__.py"]
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in froms for alias in node.names if alias.asname == alias.name}


def documented_value(tree: ast.Module, name: str) -> bool:
    """Whether the string under the assignment of a constant says what it is."""
    for value, below in zip(tree.body, tree.body[1:], strict=False):
        targets = value.targets if isinstance(value, ast.Assign) else [getattr(value, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return isinstance(below, ast.Expr) and isinstance(getattr(below.value, "value", None), str)
    return False


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_documented(package, trees):
    names = exported(trees, package)
    assert len(names) >= 2
    for name, home in names.items():
        value = getattr(importlib.import_module(package), name)
        if callable(value):
            assert len(value.__doc__ or "") > 20, name
        else:
            while (file := home.replace(".", "/") + ".py") not in trees:  # a package that has it from a module
                home = exported(trees, home)[name]
            assert documented_value(trees[file], name), name


@pytest.mark.parametrize("package", [preprocessing, longvit.explanation, longvit.finetuning, longvit.encoding])
def test_every_name_that_is_imported_when_used_is_documented(package):
    assert len(package.__all__) >= 2
    for name in package.__all__:
        assert len(getattr(package, name).__doc__ or "") > 20, name


def test_the_examples_in_docstrings_run(trees):
    tried = 0
    for file, tree in trees.items():
        if not any(">>> " in (ast.get_docstring(node) or "") for node in documented(tree)):
            continue
        module = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        result = doctest.testmod(module)
        assert result.failed == 0, file
        tried += result.attempted
    assert tried > 10


def documented(tree: ast.Module) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]


def test_no_file_names_a_place_of_one_machine(root):
    git = shutil.which("git")
    command = [str(git), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = git and subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    if not listed or listed.returncode:
        pytest.skip("this is no git checkout")
    texts = {name: text_of(root / name) for name in filter(None, listed.stdout.split("\0"))}
    lines = [(f"{name}:{i}", line) for name, text in texts.items() for i, line in enumerate(text.splitlines(), 1)]
    assert len(lines) > 10_000
    assert [place for place, line in lines if MACHINE_PATH.search(line)] == []


def text_of(path: Path) -> str:
    """Return the text of a file; "" if it is not text, or is removed and that is not yet committed."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError):
        return ""
