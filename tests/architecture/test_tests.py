"""The tests mirror the house, and each of them can fail.

Every room has a folder of its name under `tests/`. A test file in it is named after a module of the room, or its
docstring begins with the law that it holds ("Law: ..."). A module without a file of its name is imported by a test, or
by a module of its room that is.
"""

import ast
from pathlib import Path

import pytest

WHOLE_LINE = {"architecture", "benchmarks", "fuzz", "pipeline"}
"""Folders of tests that are of no room."""
PIPELINE = "pipeline"
"""Folder of the tests that call verbs as a user does."""
CHECKS = ("assert_", "raises", "warns", "fail")
"""Names, or beginnings of names, of functions that check something, in pytest, numpy and torch."""


def folder_of(module: str) -> str:
    """Return where the tests of a module's room are: rooms of longvit have no folder of the package above them."""
    return str(Path(module).parent.relative_to("longvit" if module.startswith("longvit") else "."))


def imports_of(tree: ast.Module) -> set[str]:
    """Return the modules that a file imports; of `from a import b`, both `a` and `a.b`, as either may be one."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def called(node: ast.AST) -> set[str]:
    """Return the last part of the name of every function that is called under a node."""
    calls = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
    return {name for func in calls if (name := getattr(func, "attr", getattr(func, "id", None)))}


def checks(node: ast.AST, checking: set[str]) -> bool:
    """Return whether something under a node can fail: an assertion, or a call of what checks."""
    asserts = any(isinstance(below, ast.Assert) for below in ast.walk(node))
    return asserts or any(name.startswith(CHECKS) or name in checking for name in called(node))


def unchecked(tree: ast.Module) -> list[str]:
    """Return the tests of a file that check nothing, not even through a function of the file that they call."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    checking: set[str] = set()
    for _ in range(3):  # a helper of a helper of a helper
        checking |= {f.name for f in functions if not f.name.startswith("test_") and checks(f, checking)}
    return [f.name for f in functions if f.name.startswith("test_") and not checks(f, checking)]


def left_through_except(tree: ast.Module) -> list[str]:
    """Return the tests of a file that pass, go on or end where they have caught an error."""
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    handlers = [(test.name, node) for test in tests for node in ast.walk(test) if isinstance(node, ast.ExceptHandler)]
    return [
        name
        for name, handler in handlers
        for node in ast.walk(handler)
        if isinstance(node, ast.Pass | ast.Continue) or (isinstance(node, ast.Return) and node.value is None)
    ]


@pytest.fixture(scope="module")
def tests(root) -> dict[str, ast.Module]:
    """Path from `tests/` -> every file of it."""
    home = root / "tests"
    files = {str(file.relative_to(home)): file.read_text(encoding="utf-8") for file in home.rglob("*.py")}
    return {name: ast.parse(text) for name, text in files.items()}


@pytest.fixture(scope="module")
def written(tests) -> dict[str, ast.Module]:
    return {name: tree for name, tree in tests.items() if Path(name).name.startswith("test_")}


@pytest.fixture(scope="module")
def rooms(trees) -> dict[str, set[str]]:
    """Folder under `tests/` -> names of the room's modules."""
    rooms: dict[str, set[str]] = {}
    for file in trees:
        rooms.setdefault(folder_of(file), set()).add(Path(file).stem)
    return rooms


def test_every_room_has_a_folder_of_its_name(rooms, written):
    folders = {str(Path(name).parent) for name in written}
    assert len(rooms) > 20
    assert set(rooms) - folders == set()
    assert folders - set(rooms) == WHOLE_LINE


def test_a_test_file_is_named_after_a_module_of_its_room_or_begins_with_its_law(rooms, written):
    strangers = [
        name
        for name, tree in written.items()
        if str(Path(name).parent) not in WHOLE_LINE
        and Path(name).stem.removeprefix("test_") not in rooms[str(Path(name).parent)]
        and not (ast.get_docstring(tree) or "").startswith("Law: ")
    ]
    assert strangers == []


def test_every_module_is_reached_by_a_test(trees, tests, written):
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in trees}
    imported = {name: imports_of(trees[file]) for name, file in modules.items()}
    named = {(str(Path(name).parent), Path(name).stem.removeprefix("test_")) for name in written}
    reached = {name for tree in tests.values() for name in imports_of(tree)} & set(modules)
    reached |= {
        n for n, file in modules.items() if named & {(at, Path(file).stem) for at in (folder_of(file), PIPELINE)}
    }
    while more := {
        name
        for one in reached
        for name in imported[one] & set(modules) - reached
        if folder_of(modules[name]) == folder_of(modules[one])
    }:
        reached |= more
    logic = {n for n, file in modules.items() if any(isinstance(d, ast.FunctionDef) for d in ast.walk(trees[file]))}
    assert len(logic) > 100
    assert logic - reached == set()


def test_every_test_checks_something(written):
    assert {name: found for name, tree in written.items() if (found := unchecked(tree))} == {}


def test_no_test_passes_because_an_error_was_caught(written):
    assert {name: found for name, tree in written.items() if (found := left_through_except(tree))} == {}


def test_tests_that_cannot_fail_are_found():
    code = """
def helper(): assert x
def deeper(): helper()
def test_good(): deeper()
def test_empty(): run()
def test_caught():
    try: run()
    except ValueError: return
    assert x
def test_returned():
    try: run()
    except ValueError as error: return error
    assert x
"""
    assert unchecked(ast.parse(code)) == ["test_empty"]
    assert left_through_except(ast.parse(code)) == ["test_caught"]
