"""What the user asks for: a command line and the settings file that it names, and what is wrong with either."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from pydantic import ValidationError

from longvit.complaints import Names, all_settings, as_flag, as_key, did_you_mean, no_such_setting, refused
from longvit.config import VERBS
from longvit.settings import read_values
from preprocessing.config import StageConfig
from preprocessing.errors import ConfigError

_HERE = "command line"


@dataclass(frozen=True)
class Request:
    """A command line without its `--config FILE`, and what that file holds."""

    arguments: list[str]
    file: Path | None
    values: dict[str, Any]

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "Request":
        """Take `--config FILE` off a command line and read the file.

        Raises:
            ConfigError: There is no such verb or file, or the file has a key that is no setting of the verb.
        """
        rest, file = _take_config(list(arguments))
        if not rest and file is None:
            return cls(rest, None, {})
        verb = rest[0] if rest else ""
        if verb not in VERBS and verb not in ("-h", "--help", "--version"):
            what = "the first word is not a verb" if verb.startswith("-") or not verb else f"there is no verb {verb}"
            fix = f"the verbs are {', '.join(VERBS)}"
            raise ConfigError(what + did_you_mean(verb, VERBS), where=_HERE, fix=fix)
        return cls(rest, file, read_values(file, VERBS[verb]) if file and verb in VERBS else {})

    @property
    def kind(self) -> type[StageConfig]:
        """The config class of the verb."""
        return VERBS[self.arguments[0]]

    def refusal(self, error: CycloptsError) -> ConfigError:
        """What cyclopts or pydantic objects to, as one error that says which setting and where it was given."""
        fix = f"`longvit {self.arguments[0]} --help` lists every setting"
        strangers = _strangers(error)
        if strangers:
            known = [as_flag(names) for names in all_settings(self.kind)]
            what = "; ".join(no_such_setting(flag, known) for flag in strangers)
        elif isinstance(error.__cause__, ValidationError):
            return refused(error.__cause__.errors(), self.kind, fix, self._place)
        else:
            what = self._sentence(error)
        return ConfigError(what, where=f"{_HERE} and {self.file}" if self.file else _HERE, fix=fix)

    def _sentence(self, error: CycloptsError) -> str:
        match error:
            case MissingArgumentError(keyword=str(flag)):
                return f"{flag} has no value"
            case UnusedCliTokensError(unused_tokens=[*words]) | MissingArgumentError(unused_tokens=[_, *_] as words):
                return f"{' '.join(words)} belongs to no setting; settings are given as --name value"
            case MissingArgumentError():  # nothing was given at all
                required = [name for name, field in self.kind.model_fields.items() if field.is_required()]
                return f"{', '.join(as_flag((name,)) for name in required)} must be given"
            case RepeatArgumentError(token=token):
                return f"{token.keyword} is given twice"
            case CoercionError(token=token) if token is not None:
                return f"{token.keyword} cannot be {token.value}"
            case _:
                return str(error)

    def _place(self, names: Names) -> tuple[str, list[str]]:
        """How the user wrote a setting or a group of them, and where: the flag if there is one, since it wins."""
        flag, here, there = as_flag(names), [_HERE], [str(self.file)] if self.file else []
        given = {argument.split("=")[0].replace("_", "-") for argument in self.arguments}
        if flag in given:
            return flag, here
        some = any(argument.startswith(f"{flag}.") for argument in given)
        value: Any = self.values
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return as_key(names) if some else flag, here if some else here + there
        return as_key(names), here + there if some else there


def _strangers(error: CycloptsError) -> list[str]:
    """Flags that no setting has."""
    if isinstance(error, UnknownOptionError):
        return [error.token.keyword or error.token.value]
    if isinstance(error, RepeatArgumentError | CoercionError) or getattr(error, "keyword", None):
        return []  # raised while flags were still being read: all of them are still unused
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
            return arguments[:i] + arguments[i + used :], Path(name)
    return arguments, None
