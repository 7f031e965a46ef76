"""Import every module of both packages, then run command lines, one after the other, from standard input as JSON."""

import json
import os
import pkgutil
import sys
from importlib import import_module

import longvit
import preprocessing


def main(commands: list[list[str]]) -> None:
    """Import all, then run all; the first command that does not end with 0 ends this."""
    assert not hasattr(os, "pread")
    for package in (longvit, preprocessing):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    from longvit.cli.app import run_command

    for command in commands:
        assert run_command(command) == 0, command


if __name__ == "__main__":  # processes that a verb starts read this file, too
    main(json.load(sys.stdin))
