"""The user's request: a command line and the settings file that it names, and the errors in either."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from cyclopts import CycloptsError, Token
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from pydantic import ValidationError

from longvit.config import OLD_EXECUTION, VERBS
from longvit.config.messages import (
    Names,
    all_settings,
    as_flag,
    as_key,
    did_you_mean,
    no_such_setting,
    own_names,
    refused,
)
from longvit.config.required import require_inputs
from longvit.config.yaml_files import read_values
from preprocessing.config import StageConfig
from preprocessing.errors import ConfigError, few, short

_HERE = "command line"
_OTHER_FLAGS = {"--store": "--stores"} | {
    as_flag((*group, name)): as_flag(("execution", name))
    for group, names in (
        (("encoder",), OLD_EXECUTION),
        ((), ("devices", "nodes", "sequence_parallel", "fsdp", "timeout_s")),
    )
    for name in names
}
"""Flags of earlier versions, and short names of flags -> flags of this version."""


@dataclass(frozen=True)
class Request:
    """A command line without its `--config FILE`, and the content of that file."""

    arguments: list[str]
    file: Path | None
    values: dict[str, Any]

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "Request":
        """Take `--config FILE` off a command line and read the file.

        Raises:
            ConfigError: The verb or the file does not exist, or the file has a key that is not a setting of the verb.
        """
        for argument in arguments:
            if not argument.isascii() and any("\ud800" <= c <= "\udfff" for c in argument):
                fix = "rename the file or folder, and set the shell to UTF-8"
                raise ConfigError(f"{argument!r} is not UTF-8", where=_HERE, fix=fix)
        rest, file = _take_config([_with_new_name(argument) for argument in arguments])
        if not rest and file is None:
            return cls(rest, None, {})
        verb = rest[0] if rest else ""
        if verb not in VERBS and verb not in ("-h", "--help", "--version"):
            what = (
                "the first word is not a verb"
                if verb.startswith("-") or not verb
                else f"there is no verb {short(verb)}"
            )
            fix = f"the verbs are {', '.join(VERBS)}"
            raise ConfigError(what + did_you_mean(verb, VERBS), where=_HERE, fix=fix)
        given = _flags(rest)
        replaced = lambda names: any(as_flag(names[: i + 1]) in given for i in range(len(names)))
        return cls(rest, file, read_values(file, VERBS[verb], replaced) if file and verb in VERBS else {})

    @property
    def for_flags(self) -> dict[str, Any]:
        """Return the values of the file that flags may add to.

        Excluded are values that flags replace, and groups whose names the user chooses: some of these names (a label
        with a dot) cannot be spelled as a flag.
        """
        values = deepcopy(self.values)
        replaced = [names for names in all_settings(self.kind) if as_flag(names) in _flags(self.arguments)]
        for *groups, name in [*own_names(self.kind), *replaced]:
            inner = reduce(lambda group, key: group.get(key, {}) if isinstance(group, dict) else {}, groups, values)
            if isinstance(inner, dict):
                inner.pop(name, None)
        return values

    def completed(self, config: StageConfig) -> StageConfig:
        """Return the config of flags and `for_flags`, with the rest of the file; check that its inputs exist.

        Raises:
            ConfigError: The combined values do not fit, or a file or folder is missing.
        """
        values = config.model_dump(exclude_unset=True)
        for *groups, name in own_names(self.kind):
            given = reduce(lambda group, key: group.get(key, {}), groups, self.values).get(name)
            if given:
                inner = reduce(lambda group, key: group.setdefault(key, {}), groups, values)
                inner[name] = given | inner.get(name, {})
        try:
            config = self.kind.model_validate(values)
        except ValidationError as error:
            raise refused(error.errors(), self.kind, self._fix, self._place) from None
        require_inputs(config)
        return config

    @property
    def kind(self) -> type[StageConfig]:
        """Return the config class of the verb."""
        return VERBS[self.arguments[0]]

    def refusal(self, error: CycloptsError) -> ConfigError:
        """Return an objection of cyclopts or pydantic as one error, with the setting and the place of its value."""
        strangers = _strangers(error)
        if strangers:
            known = [as_flag(names) for names in all_settings(self.kind)]
            what = few([no_such_setting(short(flag), known) for flag in strangers], separator="; ")
        elif isinstance(error.__cause__, ValidationError):
            return refused(error.__cause__.errors(), self.kind, self._fix, self._place)
        else:
            what = self._sentence(error)
        return ConfigError(what, where=f"{_HERE} and {self.file}" if self.file else _HERE, fix=self._fix)

    @property
    def _fix(self) -> str:
        return f"`longvit {self.arguments[0]} --help` lists every setting"

    def _sentence(self, error: CycloptsError) -> str:
        match error:
            case MissingArgumentError(keyword=str(flag)):
                return f"{short(flag)} has no value"
            case UnusedCliTokensError(unused_tokens=[*words]) | MissingArgumentError(unused_tokens=[_, *_] as words):
                return f"{short(' '.join(words))} belongs to no setting; settings are given as --name value"
            case MissingArgumentError():  # no argument was given
                required = [name for name, field in self.kind.model_fields.items() if field.is_required()]
                return f"{', '.join(as_flag((name,)) for name in required)} must be given"
            case RepeatArgumentError(token=Token(keyword=str(flag))):
                return f"{short(flag)} is given twice"
            case CoercionError(token=Token(keyword=str(flag), value=value)):
                return f"{short(flag)} cannot be {short(value)}"
            case _:
                return short(str(error), 500)

    def _place(self, names: Names) -> tuple[str, list[str]]:
        """Return how and where the user wrote a setting or a group; a flag first, since it takes precedence."""
        flag, here, there = as_flag(names), [_HERE], [str(self.file)] if self.file else []
        if not names:
            return "", here + there
        given = _flags(self.arguments)
        if flag in given:
            return flag, here
        some = any(argument.startswith(f"{flag}.") for argument in given)
        value: Any = self.values
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return as_key(names) if some else flag, here if some else here + there
        return as_key(names), here + there if some else there


def _flags(arguments: Sequence[str]) -> set[str]:
    """Return the flags of a command line, as `as_flag` writes them."""
    return {argument.split("=")[0].replace("_", "-") for argument in arguments}


def _with_new_name(argument: str) -> str:
    """Return an argument, which may be a flag with its value, by the full name of the flag in this version."""
    flag, equals, value = argument.partition("=")
    return _OTHER_FLAGS.get(flag.replace("_", "-"), flag) + equals + value


def _strangers(error: CycloptsError) -> list[str]:
    """Return the flags that no setting has."""
    if isinstance(error, UnknownOptionError):
        return [error.token.keyword or error.token.value]
    if isinstance(error, RepeatArgumentError | CoercionError) or getattr(error, "keyword", None):
        return []  # raised while flags were still being read, so that all flags count as unused
    return [token.split("=")[0] for token in error.unused_tokens or () if token.startswith("--")]


def _take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Split `--config FILE` (or `--config=FILE`) off the command line."""
    for i, argument in enumerate(arguments):
        if argument == "--config" or argument.startswith("--config="):
            _, equals, value = argument.partition("=")
            used = 1 if equals else 2
            name = value if equals else "".join(arguments[i + 1 : i + 2])
            if not name:
                raise ConfigError("--config has no value", where=_HERE, fix="name a YAML file after --config")
            return arguments[:i] + arguments[i + used :], Path(name).expanduser()
    return arguments, None
