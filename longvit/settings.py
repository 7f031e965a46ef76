"""Settings on disk: YAML <-> config classes, and pydantic's complaints turned into sentences."""

import sys
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from longvit.config import VERBS
from preprocessing.config import StageConfig
from preprocessing.errors import ConfigError

Config = TypeVar("Config", bound=StageConfig)


def invalid(error: ValidationError, where: str) -> ConfigError:
    """One error that names every setting pydantic refused, without its jargon."""
    sentences = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {_sentence(e)}" for e in error.errors()]
    return ConfigError(
        "; ".join(sentences), where=where, fix="correct these keys; `longvit VERB --help` lists them all"
    )


def _sentence(problem: dict) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return "there is no such key"
        case "missing":
            return "a value is required"
        case "value_error":
            return problem["msg"].removeprefix("Value error, ")
        case _:
            return f"{problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"


def load_yaml(path: Path, kind: type[Config]) -> Config:
    """Read a config of the given class.

    Raises:
        ConfigError: The file is missing, is not YAML, or a key or value does not fit; all problems are named.
    """
    if not path.is_file():
        raise ConfigError("the settings file does not exist", where=path, fix="check the path")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"not a YAML file: {error}", where=path, fix="mend the syntax at that place") from None
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise invalid(error, str(path)) from None


def to_yaml(config: StageConfig) -> str:
    """The resolved config, every value written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def reference_yaml(kind: type[StageConfig]) -> str:
    """Every setting of a verb with its default and its sentence; required ones hold a placeholder."""
    header = (kind.__doc__ or "").strip().splitlines()[0]
    return "\n".join([f"# {header}", *_fields(kind, {}, "")]) + "\n"


def _fields(kind: type[BaseModel], values: dict, indent: str) -> list[str]:
    lines = []
    for name, field in kind.model_fields.items():
        value = values[name] if name in values else field.get_default(call_default_factory=True)
        lines.append(f"{indent}# {field.description}")
        if isinstance(value, BaseModel):
            given = {key: getattr(value, key) for key in type(value).model_fields}
            lines += [f"{indent}{name}:", *_fields(type(value), given, indent + "  ")]
        elif value is PydanticUndefined:
            lines.append(f"{indent}{name}: REQUIRED")
        else:
            dumped = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            text = yaml.safe_dump(dumped, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
            lines.append(f"{indent}{name}: {text}")
    return lines


if __name__ == "__main__":  # `make configs`
    for verb, kind in VERBS.items():
        (Path(sys.argv[1]) / f"{verb}.yaml").write_text(reference_yaml(kind), encoding="utf-8")
