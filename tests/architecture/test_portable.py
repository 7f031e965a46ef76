"""Names that Windows lacks are in one module, and text files have the same bytes on every system."""

import ast
import runpy

import pytest

SYSTEM = "preprocessing/jobs/system.py"
"""Module that may use them."""
OPENED = {"longvit/cli/app.py", "longvit/runs/privacy.py", "preprocessing/jobs/atomic_folder.py"}
"""Modules that use `os.open`, which translates line ends on Windows: without content, or only in an opener."""
ATTRIBUTES = {"os", "signal"}
"""Modules of which only some names are lacking."""


@pytest.fixture(scope="module")
def lacking(root) -> dict[str, set[str]]:
    """The lists of `like_windows/lacking.py`, by name."""
    lists = runpy.run_path(str(root / "tests/pipeline/like_windows/lacking.py"))
    return {name: set(lists[name].split()) for name in ("MODULES", "OS", "SIGNALS", "SIGNAL_CALLS")}


def names_of(tree: ast.AST) -> set[str]:
    """Imported modules, and `os.x` and `signal.x` of every use."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ATTRIBUTES:
            names.add(f"{node.value.id}.{node.attr}")
    return names


def is_lacking(name: str, lacking: dict[str, set[str]]) -> bool:
    module, _, name = name.partition(".")
    if module == "signal":
        return name in lacking["SIGNAL_CALLS"] or (
            name[:3] == "SIG" and name[3:4] != "_" and name not in lacking["SIGNALS"]
        )
    return module in lacking["MODULES"] or (module == "os" and name in lacking["OS"])


def untold(tree: ast.AST) -> list[int]:
    """Lines of calls that open text without its encoding, or write it with the system's line ends."""
    lines = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        method = isinstance(call.func, ast.Attribute)
        name = getattr(call.func, "attr", getattr(call.func, "id", None))
        told, strings = (
            {word.arg for word in call.keywords},
            [a.value for a in call.args if isinstance(a, ast.Constant)],
        )
        modes = [mode for mode in strings if isinstance(mode, str) and mode and not set(mode) - set("rwaxbt+")]
        if (not method and name != "open") or (method and name == "open" and call.args and not modes):
            continue  # a function of this name; a member of an archive or an address
        text = name in {"read_text", "write_text"} or (name == "open" and not any("b" in mode for mode in modes))
        writes = name == "write_text" or (name == "open" and any(set(mode) & set("wax") for mode in modes))
        need = ({"encoding"} if text else set()) | ({"newline"} if text and writes else set())
        need |= {"lineterminator"} if name == "to_csv" else set()
        lines += [call.lineno] if need - told else []
    return lines


def test_names_that_windows_lacks_are_in_one_module(trees, lacking):
    found = {file: {name for name in names_of(tree) if is_lacking(name, lacking)} for file, tree in trees.items()}
    assert found.pop(SYSTEM) >= {"fcntl", "os.writev"}
    assert {file: names for file, names in found.items() if names} == {}
    assert {file for file, tree in trees.items() if "os.open" in names_of(tree)} == OPENED | {SYSTEM}


@pytest.mark.parametrize(
    "line",
    ["import fcntl", "from os import fork", "import os\nos.pread", "signal.SIGKILL", "from signal import SIGHUP"],
)
def test_a_name_that_windows_lacks_would_be_seen(line, lacking):
    assert any(is_lacking(name, lacking) for name in names_of(ast.parse(line)))


def test_text_files_have_an_encoding_and_line_ends_of_their_own(trees):
    assert {file: lines for file, tree in trees.items() if (lines := untold(tree))} == {}


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("path.read_text()", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.write_text(text, encoding='utf-8')", True),
        ("path.open('w', encoding='utf-8')", True),
        ("path.open(encoding='utf-8')", False),
        ("path.open()", True),
        ("open(path)", True),
        ("open(path, 'rb')", False),
        ("open(path, 'a', encoding='utf-8', newline='')", False),
        ("archive.open(name)", False),
        ("table.to_csv(path)", True),
    ],
)
def test_a_text_file_without_them_would_be_seen(line, seen):
    assert bool(untold(ast.parse(line))) == seen
