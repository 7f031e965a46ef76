"""Settings on disk: YAML <-> config classes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from longvit.config import OLD_EXECUTION, VERBS, without_execution
from longvit.config.messages import Names, as_key, kinds_of, names_of, refused
from longvit.config.yaml_reader import line_of, read_mapping
from preprocessing.config import StageConfig
from preprocessing.errors import ConfigError

Config = TypeVar("Config", bound=StageConfig)
Written = Callable[[Names], tuple[str, list[str]]]
Loc = tuple[int | str, ...]
_FIX = "correct the file; configs/reference has every setting"


def load_yaml(path: Path, kind: type[Config]) -> Config:
    """Read a config of the given class.

    Raises:
        ConfigError: The file is missing, is not YAML, or a key or value does not fit; the error names all problems.
    """
    values, written = _read(path, kind)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise refused(error.errors(), kind, _FIX, written) from None


def read_values(path: Path, kind: type[StageConfig], replaced: Callable[[Names], bool]) -> dict[str, Any]:
    """Read values that a command line may add to or replace.

    Args:
        path: The file.
        kind: The config class.
        replaced: Function that returns whether the command line replaces a setting, which is then not checked.

    Raises:
        ConfigError: The file is missing, is not YAML, or a key or a value does not fit; the error names all problems.
    """
    values, written = _read(path, kind)
    if final := _final(values, kind, kind, (), replaced):
        raise refused(final, kind, _FIX, written)
    return values


def _final(
    values: object, group: type[BaseModel], kind: type[StageConfig], loc: Loc, replaced: Callable[[Names], bool]
) -> list[dict[str, Any]]:
    """Return the errors of a group at `loc` that no flag can remove; settings that contradict each other may change.

    A group whose `kind` a flag may give has the errors of the kind that it fits best, so that no other code meets a
    value that no kind accepts.
    """
    try:
        group.model_validate(values)
    except ValidationError as error:
        problems = [{**problem, "loc": (*loc, *problem["loc"])} for problem in error.errors()]
    else:
        return []
    final = []
    for problem in problems:
        if problem["type"] == "union_tag_not_found":
            inner = kinds_of(kind, problem).items()
            found = [_final(problem["input"], one, kind, (*problem["loc"], tag), replaced) for tag, one in inner]
            final += min(found, key=lambda these: sum(1 + (one["type"] == "extra_forbidden") for one in these))
        elif problem["type"] not in ("missing", "value_error") and (
            problem["type"] == "extra_forbidden" or not replaced(names_of(kind, problem))
        ):
            final.append(problem)
    return final


def _read(path: Path, kind: type[StageConfig]) -> tuple[dict[str, Any], Written]:
    """Return a file's values, and the key and place of a setting as the file has them.

    `execution` holds `encoder.recompute` and the like, as version 0.1 named its settings, and `stores` of `explain` its
    `store`.

    Raises:
        ConfigError: The file cannot be read, or gives a setting by its old and its new name.
    """
    values = read_mapping(path)
    if "stores" in kind.model_fields and "stores" not in values and "store" in values:
        values["stores"] = values.pop("store")
    encoder, execution = values.get("encoder"), values.get("execution", {})
    old = {}
    if "encoder" in kind.model_fields and isinstance(encoder, dict):
        old = {name: encoder[name] for name in OLD_EXECUTION if name in encoder}

    def written(names: Names) -> tuple[str, list[str]]:
        if names[:1] != ("execution",) or names[-1] not in old:
            return as_key(names), [str(path)]
        names = ("encoder", names[-1])
        return as_key(names), [f"{path}, line {line_of(path, names)}"]

    if old:
        values["encoder"] = without_execution(encoder)
    if old and isinstance(execution, dict):  # if it is not, this alone is the error
        for name in execution.keys() & old:
            what = f"encoder.{name} is the old name of execution.{name}, and the file gives both"
            raise ConfigError(what, where=path, fix=f"remove encoder.{name}")
        values["execution"] = execution | old
    return values, written


def to_yaml(config: StageConfig) -> str:
    """Return the resolved config as YAML, every value written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def reference_yaml(kind: type[StageConfig]) -> str:
    """Return YAML with every setting of a verb, its default and its sentence; required settings get a placeholder."""
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
        (Path(sys.argv[1]) / f"{verb}.yaml").write_text(reference_yaml(kind), encoding="utf-8", newline="\n")
