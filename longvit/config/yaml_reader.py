"""YAML files of settings -> names with values, within bounds; a name that appears twice is an error."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from longvit.config.required import SETTINGS
from preprocessing.errors import ConfigError

MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_DIGITS = 2**18, 10_000, 32, 20
"""Bounds: bytes of a file, number of values with every alias written out, depth of nesting, digits of a whole
number."""
_TAG = "tag:yaml.org,2002:"
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_FIX = "correct the file at that place"


class _RefusedError(yaml.MarkedYAMLError):
    """Error for YAML that is valid, but not in the form of settings."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem=problem, problem_mark=mark)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the names and values of a settings file.

    Raises:
        ConfigError: The file is missing, is not YAML or exceeds the bounds; or a name appears twice or is not text.
    """
    if what := SETTINGS.problem(path):
        raise ConfigError(what, where=path.absolute(), fix=SETTINGS.fix)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the settings file cannot be read: {error.strerror}", where=path, fix="check it") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the settings file has more than {MAX_BYTES:,} bytes", where=path, fix="shorten it")
    values = _parsed(data, path)
    if not isinstance(values, dict | None):
        fix = "write one `name: value` on each line"
        raise ConfigError("the settings file contains no names with values", where=path, fix=fix)
    return values or {}


def line_of(path: Path, names: Sequence[str]) -> int:
    """Return the line, from 1, of a setting in a file that `read_mapping` has read.

    Args:
        path: The file.
        names: Path of the setting through its groups. A setting that an anchor brings is at the line of its group.
    """
    node, line = _Loader(path.read_text(encoding="utf-8-sig")).get_single_node(), 1
    for name in names:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        for key, value in pairs:
            if key.value == name:
                node, line = value, key.start_mark.line + 1
                break
    return line


def _parsed(data: bytes, path: Path) -> object:
    prefix = "the settings file is not YAML: "
    try:
        loader = _Loader(data.decode("utf-8-sig"))
        try:
            return loader.get_single_data()
        except (ValueError, OverflowError):  # \UFFFFFFFF
            what, line, column = "a character that does not exist", loader.line, loader.column
    except yaml.reader.ReaderError as error:  # a control character
        before = data.decode("utf-8-sig")[: error.position]
        what, line, column = error.reason, before.count("\n"), len(before) - before.rfind("\n") - 1
    except yaml.MarkedYAMLError as error:
        prefix = "" if isinstance(error, _RefusedError) else prefix
        mark = error.problem_mark
        what, line, column = error.problem or "", mark.line if mark else 0, mark.column if mark else 0
    except UnicodeDecodeError as error:
        what, line, column = "it is not UTF-8", data[: error.start].count(b"\n"), 0
    raise ConfigError(prefix + what, where=f"{path}, line {line + 1}, column {column + 1}", fix=_FIX)


class _Loader(yaml.SafeLoader):
    """Reader of the YAML that settings need: text, numbers, booleans, null, lists, and names with values."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = self.values = 0

    def get_single_node(self) -> yaml.Node | None:
        """Compose the file, then check it with every alias written out, before any value is constructed."""
        node = super().get_single_node()
        self.values = 0
        if node is not None:
            self._check(node, 0)
        return node

    def compose_node(self, parent: yaml.Node | None, index: yaml.Node | int | None) -> yaml.Node | None:
        """Compose one node within the bounds."""
        event = self.peek_event()
        self._count(self.depth, event.start_mark)
        if getattr(event, "tag", None):
            raise _RefusedError(f"the tag {event.tag[:60]} is not supported", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode):
            if _NOT_TEXT.search(node.value):
                raise _RefusedError("a text has a character that is not allowed", node.start_mark)
            if node.tag == f"{_TAG}int" and len(node.value) > MAX_DIGITS:
                raise _RefusedError(f"a number has more than {MAX_DIGITS} digits", node.start_mark)
            if node.tag in (f"{_TAG}timestamp", f"{_TAG}value"):  # a date, and a single =
                node.tag = f"{_TAG}str"
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401 - PyYAML's
        """Return the value of a node."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # 0x_
            raise _RefusedError(f"a number cannot be read: {error}", node.start_mark) from None

    def _check(self, node: yaml.Node, depth: int) -> None:
        self._count(depth, node.start_mark)
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._check(item, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            names = set()
            for key, value in node.value:
                if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                    written = f" {key.value[:60]}" if isinstance(key, yaml.ScalarNode) else ""
                    raise _RefusedError(f"the name{written} is not text; put it in quotes", key.start_mark)
                if key.value in names:
                    raise _RefusedError(f"{key.value[:60]} is given twice", key.start_mark)
                names.add(key.value)
                self._check(value, depth + 1)

    def _count(self, depth: int, mark: yaml.Mark) -> None:
        self.values += 1
        if depth > MAX_DEPTH:
            raise _RefusedError(f"values are nested more than {MAX_DEPTH} deep", mark)
        if self.values > MAX_VALUES:
            raise _RefusedError(f"the settings file has more than {MAX_VALUES:,} values", mark)
