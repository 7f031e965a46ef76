"""Settings on disk: YAML <-> config classes."""

import sys
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from longvit.complaints import as_key, refused
from longvit.config import VERBS
from preprocessing.config import StageConfig
from preprocessing.errors import ConfigError

Config = TypeVar("Config", bound=StageConfig)
_FIX = "correct the file; configs/reference has every setting"


def load_yaml(path: Path, kind: type[Config]) -> Config:
    """Read a config of the given class.

    Raises:
        ConfigError: The file is missing, is not YAML, or a key or value does not fit; all problems are named.
    """
    try:
        return kind.model_validate(_read_mapping(path))
    except ValidationError as error:
        raise refused(error.errors(), kind, _FIX, lambda names: (as_key(names), [str(path)])) from None


def read_values(path: Path, kind: type[StageConfig]) -> dict[str, Any]:
    """Read values that a command line may add to or replace: every key exists, but the values are not checked.

    Raises:
        ConfigError: The file is missing, is not YAML, or has a key that `kind` has not; all such keys are named.
    """
    values = _read_mapping(path)
    try:
        kind.model_validate(values)
    except ValidationError as error:
        strangers = [problem for problem in error.errors() if problem["type"] == "extra_forbidden"]
        if strangers:
            raise refused(strangers, kind, _FIX, lambda names: (as_key(names), [str(path)])) from None
    return values


def _read_mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError("the settings file does not exist", where=path, fix="check the path")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else path
        what = f"the settings file is not YAML: {getattr(error, 'problem', None) or error}"
        raise ConfigError(what, where=where, fix="mend the syntax at that place") from None
    if not isinstance(values, dict | None):
        fix = "write one `name: value` on each line"
        raise ConfigError("the settings file holds no names with values", where=path, fix=fix)
    return values or {}


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
        lines += [f"{indent}# {line.strip()}" for line in (field.description or "").splitlines()]
        if name not in values and field.is_required():
            lines.append(f"{indent}{name}: REQUIRED")
            continue
        value = values[name] if name in values else field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            given = {key: getattr(value, key) for key in type(value).model_fields}
            lines += [f"{indent}{name}:", *_fields(type(value), given, indent + "  ")]
        else:
            dumped = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            text = yaml.safe_dump(dumped, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
            lines.append(f"{indent}{name}: {text}")
    return lines


if __name__ == "__main__":  # `make configs`
    for verb, kind in VERBS.items():
        (Path(sys.argv[1]) / f"{verb}.yaml").write_text(reference_yaml(kind), encoding="utf-8")
