"""The house: few modules at the top of a package, rooms of twenty, one door to the settings, names used once."""

import ast
from collections import Counter
from pathlib import Path

import pytest

AT_THE_TOP = {
    "preprocessing": {"__init__", "config", "errors", "frames", "tile"},
    "longvit": {"__init__", "__main__", "demo"},
}
ROOM = 20
"""Modules of a room."""
NO_CLASSES = {"messages", "required", "yaml_files", "yaml_reader"}
"""Modules of `longvit.config` that hold no settings, and are imported by their own names."""


def test_no_module_lies_loose(trees):
    loose = {package: {Path(f).stem for f in trees if Path(f).parent == Path(package)} for package in AT_THE_TOP}
    assert loose == AT_THE_TOP


def test_no_room_is_outgrown(trees):
    rooms = Counter(str(Path(file).parent) for file in trees if not file.endswith("__init__.py"))
    assert len(rooms) > 15
    assert {room: count for room, count in rooms.items() if count > ROOM} == {}


def doors(node: ast.AST, rooms: set[str]) -> set[str]:
    """Modules of `longvit.config`, of those named in `rooms`, that an import names."""
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    else:
        return set()
    return names & {f"longvit.config.{room}" for room in rooms}


def test_settings_are_imported_through_one_door(trees):
    rooms = {Path(file).stem for file in trees if file.startswith("longvit/config/")} - NO_CLASSES
    found = [
        f"{file}: {named}"
        for file, tree in trees.items()
        if not file.startswith("longvit/config/")
        for node in ast.walk(tree)
        for named in doors(node, rooms)
    ]
    assert len(rooms) > 10
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["from longvit.config.encoder import X", "import longvit.config.encoder", "from longvit.config import encoder"],
)
def test_another_door_would_be_found(code):
    assert doors(ast.parse(code).body[0], {"encoder"}) == {"longvit.config.encoder"}


def test_a_module_has_a_name_of_its_own(trees):
    """Modules of `longvit.config` alone are named like the modules that they configure."""
    names = Counter(
        (file.split("/")[0], Path(file).stem)
        for file in trees
        if not file.endswith("__init__.py") and not file.startswith("longvit/config/")
    )
    assert len(names) > 150
    assert [name for name, count in names.items() if count > 1] == []


def test_a_public_function_has_a_name_of_its_own(trees):
    """Every verb has a `run`, and its command in `longvit.cli.app` has the verb's name."""
    names = Counter(
        node.name
        for file, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name != "run"
    )
    assert len(names) > 300
    assert [name for name, count in names.items() if count > 1] == []


OWNER = {
    "predictions.csv": "longvit/formats/predictions_csv.py",
    "metrics.json": "longvit/formats/metrics_json.py",
    "audit.json": "longvit/formats/audit_json.py",
    "explanation.json": "longvit/formats/explanation_json.py",
    "scores.csv": "longvit/formats/explanation_json.py",
    "membership.csv": "longvit/formats/membership_csv.py",
    "run.json": "longvit/formats/run_json.py",
    "inputs.json": "longvit/runs/folder.py",
    "report.html": "longvit/runs/folder.py",
    "representations.csv": "longvit/runs/folder.py",
    "metrics.csv": "longvit/runs/folder.py",
    "risk_scale.json": "longvit/model/outputs.py",
}
"""File that users keep -> the one module whose code names it."""


def test_the_name_of_a_file_that_users_keep_is_in_one_module(trees):
    named = {name: set() for name in OWNER}
    for file, tree in trees.items():
        if not file.startswith("longvit/"):
            continue
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                for name in OWNER:
                    if name in node.value:
                        named[name].add(file)
    assert named == {name: {file} for name, file in OWNER.items()}
