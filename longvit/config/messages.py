"""Errors in settings as sentences: the setting as the user wrote it, and the value it should have."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from preprocessing.errors import ConfigError, few, short

MAX_SHOWN = 120
"""Largest number of characters of a value that an error quotes."""
MAX_SENTENCE = 600
"""Largest number of characters of a sentence about one setting."""
Names = tuple[str, ...]
"""Path of a setting through its groups: ("tissue", "mask_um")."""


def as_key(names: Names) -> str:
    """Return a setting as YAML's readers write it: `tissue.mask_um`."""
    return ".".join(names)


def as_flag(names: Names) -> str:
    """Return a setting as the command line writes it: `--tissue.mask-um`."""
    return "--" + as_key(names).replace("_", "-")


def refused(
    problems: Sequence[Mapping[str, Any]],
    kind: type[BaseModel],
    fix: str,
    place: Callable[[Names], tuple[str, list[str]]],
) -> ConfigError:
    """Return one error for all settings that pydantic refused, without pydantic's jargon.

    Args:
        problems: The result of `ValidationError.errors()`.
        kind: The config class.
        fix: Fix of the error.
        place: Function from the names of a setting to the setting as the user wrote it, and its places.
    """
    sentences: dict[str, None] = {}
    places: dict[str, None] = {}
    for problem in problems:
        names, holders = _locate(kind, problem["loc"])
        written, where = place(names)
        places |= dict.fromkeys(where)
        sentences[_sentence(problem, names, short(written), kind, holders)] = None
    what = few(list(sentences), separator="; ", longest=MAX_SENTENCE)
    return ConfigError(what, where=" and ".join(places), fix=fix)


def names_of(kind: type[BaseModel], problem: Mapping[str, Any]) -> Names:
    """Return the setting that one of pydantic's errors is about."""
    return _locate(kind, problem["loc"])[0]


def kinds_of(kind: type[BaseModel], problem: Mapping[str, Any]) -> dict[str, type[BaseModel]]:
    """Return the classes of the group that one of pydantic's errors is about, by the `kind` that selects each."""
    names, holders = _locate(kind, problem["loc"])
    return {str(_tag(group)): group for group in _groups(holders[0].model_fields[names[-1]].annotation)}


def no_such_setting(written: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that does not exist, with the closest name that does.

    >>> no_such_setting("--slide", ["--slides", "--out"])
    'there is no setting --slide; did you mean --slides?'
    """
    return f"there is no setting {written}" + did_you_mean(written, known)


def did_you_mean(written: str, known: Iterable[str]) -> str:
    """Return the end of a sentence, which suggests the closest of the known names; empty if no name is close."""
    close = difflib.get_close_matches(written, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def all_settings(kind: type[BaseModel]) -> Iterator[Names]:
    """Yield every setting of a config class, both the groups and the settings in them."""
    for name, field in kind.model_fields.items():
        yield (name,)
        for group in _groups(field.annotation):
            yield from ((name, *rest) for rest in all_settings(group))


def own_names(kind: type[BaseModel]) -> Iterator[Names]:
    """Yield the settings that map names chosen by the user to values."""
    for name, field in kind.model_fields.items():
        if get_origin(field.annotation) is dict:
            yield (name,)
        for group in _groups(field.annotation):
            yield from ((name, *rest) for rest in own_names(group))


def _groups(annotation: object) -> list[type[BaseModel]]:
    """Return the config classes that a field can hold."""
    return [c for c in (annotation, *get_args(annotation)) if inspect.isclass(c) and issubclass(c, BaseModel)]


def _tag(group: type[BaseModel]) -> str | None:
    """Return the value of `kind` that selects a class of a union, or None."""
    return group.model_fields["kind"].default if "kind" in group.model_fields else None


def _locate(kind: type[BaseModel], loc: Sequence[int | str]) -> tuple[Names, list[type[BaseModel]]]:
    """Return pydantic's location without indices and tags of unions, and the classes that can have its last name."""
    names: list[str] = []
    holders, inside = [kind], [kind]
    for part in loc:
        tagged = [group for group in inside if part == _tag(group)]
        if tagged:
            inside = tagged
        elif isinstance(part, str):
            names.append(part)
            holders = inside
            fields = [group.model_fields[part] for group in inside if part in group.model_fields]
            inside = _groups(fields[0].annotation) if fields else []
    return tuple(names), holders


_SHOULD = {
    "model_type": "should be a group of settings",
    "model_attributes_type": "should be a group of settings",
    "tuple_type": "should be a list, as [a, b]",
    "list_type": "should be a list, as [a, b]",
    "dict_type": "should be names with values",
    "int_parsing_size": "should be a smaller number",
}
"""Kind of pydantic error -> end of the sentence."""


def _sentence(
    problem: Mapping[str, Any], names: Names, written: str, kind: type[BaseModel], holders: list[type[BaseModel]]
) -> str:
    match problem["type"]:
        case "missing":
            return f"{written} is missing"
        case "too_short" if not problem["input"]:
            return f"{written} has no value"
        case "extra_forbidden":
            return _stranger(names, written, kind, holders)
        case "union_tag_invalid" | "union_tag_not_found":
            return f"{written}.kind should be one of {', '.join(kinds_of(kind, problem))}"
        case "value_error":
            sentence = problem["msg"].removeprefix("Value error, ")
            return f"{written}: {sentence}" if names else sentence
        case "path_type" | "string_type":
            should = f"should be a {problem['type'].removesuffix('_type').replace('string', 'text')}"
        case known if known in _SHOULD:
            should = _SHOULD[known]
        case _:
            should = problem["msg"].removeprefix("Input ").split(", unable")[0].split(", got")[0]
    return f"{written} {should}, got {_shown(problem['input'])}"


def _shown(value: object) -> str:
    """Return a value as Python writes it, cut to one line."""
    try:
        text = repr(value)
    except ValueError:  # a number of more than 4,300 digits
        return "a number of thousands of digits"
    return short(text, MAX_SHOWN)


def _stranger(names: Names, written: str, kind: type[BaseModel], holders: list[type[BaseModel]]) -> str:
    known = list(all_settings(kind))
    if names in known:  # a setting of another class of the same union
        return f"{written} is not a setting if kind is {_tag(holders[0])}"
    return no_such_setting(written, map(as_flag if written.startswith("--") else as_key, known))
