"""Documents: lengths, the form of decisions and their index, links, and command lines that parse."""

import ast
import importlib
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from longvit.cli.app import app
from preprocessing.config import StageConfig

MOST_LINES = {"README.md": 130, "CONTRIBUTING.md": 80}
SECTIONS = ["Decision", "Why", "Rejected", "Revisit when"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_COMMANDS = ("README.md", "longvit/README.md", "preprocessing/README.md", "notebooks/README.md")
BUILT = {"build", "demo", "runs"}
"""Folders at the root that hold no sources; neither do hidden ones."""


@pytest.fixture(scope="module")
def documents(root) -> dict[str, str]:
    """Path from the root -> text of every Markdown file."""
    names = sorted(path.relative_to(root) for path in root.rglob("*.md"))
    names = [name for name in names if name.parts[0] not in BUILT and not any(part[0] == "." for part in name.parts)]
    return {str(name): (root / name).read_text(encoding="utf-8") for name in names}


@pytest.fixture(scope="module")
def decisions(documents) -> dict[str, str]:
    return {name: text for name, text in documents.items() if Path(name).parent.name == "decisions"}


def prose(text: str) -> str:
    """Return the text without its blocks of code."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the names by which GitHub links to the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", MOST_LINES)
def test_the_first_pages_are_short(name, documents):
    assert len(documents[name].splitlines()) <= MOST_LINES[name]


def test_every_decision_has_four_sections(decisions):
    assert len(decisions) >= 15
    for name, text in decisions.items():
        parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
        assert re.fullmatch(r"# .+\n\n", parts[0]), name
        assert parts[1::2] == SECTIONS, name
        assert all(body.strip() for body in parts[2::2]), name


def test_decisions_are_numbered_without_gaps(decisions):
    for package in ("longvit", "preprocessing"):
        names = [Path(name).name for name in decisions if name.startswith(f"{package}/")]
        assert [int(name[:3]) for name in sorted(names)] == list(range(1, len(names) + 1)), package
        assert [name for name in names if not re.fullmatch(r"\d{3}(-[a-z0-9]+)+\.md", name)] == []


def test_every_decision_is_in_the_index_under_its_title(decisions, documents):
    listed = re.findall(r"^- \[(\w+ \d{3})\]\((\S+)\) (.*)$", documents["CONTRIBUTING.md"], re.MULTILINE)
    expected = [
        (f"{name.split('/')[0]} {Path(name).name[:3]}", name, text.splitlines()[0].removeprefix("# "))
        for name, text in decisions.items()
    ]
    assert sorted(listed) == sorted(expected)


def test_every_relative_link_leads_somewhere(documents, root):
    followed, broken = 0, []
    for name, text in documents.items():
        for link in LINK.findall(prose(text)):
            if "://" in link:
                continue
            place, _, anchor = unquote(link).partition("#")
            target = (root / name).parent / place if place else root / name
            followed += 1
            if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
                broken.append(f"{name}: {link}")
    assert followed > 50
    assert broken == []


def commands(text: str) -> list[list[str]]:
    """Return the commands in the blocks of shell, without comments; a line that ends in a backslash goes on."""
    blocks = [body.replace("\\\n", " ") for language, body in FENCE.findall(text) if language == "sh"]
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_the_commands_of_the_documents_parse(documents, root, monkeypatch):
    found = [words for name in WITH_COMMANDS for words in commands(documents[name])]
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    monkeypatch.setattr(app, "config", [])
    verbs = []
    for words in found:
        if words[0] == "make":
            assert words[1] in targets
        if words[:3] == ["conda", "env", "create"]:
            assert (root / words[words.index("-f") + 1]).is_file()
        if words[0] == "longvit":
            verbs.append(words[1])
            parsed(words[1:], root)
    assert {"tile", "audit", "pretrain", "finetune", "evaluate", "predict", "explain", "view"} <= set(verbs)


def test_the_imports_of_the_documents_exist(documents):
    imported = 0
    for name in WITH_COMMANDS:
        for block in (body for language, body in FENCE.findall(documents[name]) if language == "python"):
            for node in ast.parse(block).body:
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module)
                    assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], name
                    imported += len(node.names)
    assert imported > 10


def parsed(arguments: list[str], root: Path) -> StageConfig:
    """Return the settings of a command line; its `--config` file must be in the checkout."""
    if "--config" in arguments:
        place = arguments.index("--config")
        assert (root / arguments[place + 1]).is_file()
        arguments = [*arguments[:place], *arguments[place + 2 :]]
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    return bound.arguments["config"]
