"""Public names of a package that are imported when they are first used (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package.

    Args:
        package: Name of the package.
        home: Public name -> `module:name` of its value, or `module` if the value is a module.
    """

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, there = home[name].partition(":")
        value = getattr(import_module(module), there) if there else import_module(module)
        vars(sys.modules[package])[name] = value
        return value

    return get, lambda: sorted(home)
