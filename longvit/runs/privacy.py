"""Names in files that people share: paths without this machine's folders, and pseudonyms of patients, slides and sites.

The project is the working directory. A file or folder in the project is written as a path relative to the file that
names it; of any other path only the last name is written. `LONGVIT_KEEP_PATHS=1` in the environment keeps full paths.
"""

import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from preprocessing.errors import ConfigError
from preprocessing.jobs.files import cannot_write

KEEP_PATHS = "LONGVIT_KEEP_PATHS"
"""Environment variable that keeps full paths in files."""
KEY_BYTES = 32
"""Length of the key of pseudonyms, bytes."""
_PSEUDONYM = re.compile("P-[0-9a-f]{12}")


def shareable_path(path: Path | str, folder: Path | str) -> str:
    """Return a path as a file in `folder` may contain it: relative if both are in the project, else the last name.

    Readers of the file join the path to the file's folder, and search only there.

    Args:
        path: The target, as the user wrote it.
        folder: Folder of the file that will contain the result.
    """
    target, start, project = os.path.abspath(path), os.path.abspath(folder), os.getcwd()
    if os.environ.get(KEEP_PATHS):
        return target
    inside = _is_in(target, project) and _is_in(start, project)
    return Path(os.path.relpath(target, start)).as_posix() if inside else os.path.basename(target)


def shareable_command(arguments: Sequence[str]) -> list[str]:
    """Return a command line with paths relative to the project; of paths outside it only the last name."""
    return [_short_flag(word) for word in arguments]


def shareable_values(values: Any) -> Any:  # noqa: ANN401 - any YAML or JSON
    """Return settings or a document in which strings with paths outside the project are shortened to the last name."""
    if isinstance(values, dict):
        return {key: shareable_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [shareable_values(value) for value in values]
    return _short(values) if isinstance(values, str) else values


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms of patient, slide and site ids; without a key, the ids themselves."""

    key: bytes | None = field(default=None, repr=False)
    """Secret key; anyone with the key can find the id of a pseudonym by trial."""

    @classmethod
    def read(cls, path: Path | None) -> "Pseudonyms":
        """Read the key file; create it, readable by its owner alone, if it does not exist.

        Raises:
            ConfigError: The file is not a key.
            OutputError: The file cannot be created.
        """
        if path is None:
            return cls()
        if not path.exists():
            _make_key(path)
        try:
            with path.open("rb") as file:
                key = file.read(KEY_BYTES + 1)
        except OSError as error:
            what = f"the key cannot be read ({error.strerror})"
            raise ConfigError(what, where=path, fix="name a file that you may read") from None
        if len(key) != KEY_BYTES:
            what = f"the file is not a key of {KEY_BYTES} bytes"
            raise ConfigError(what, where=path, fix="name a file that does not exist yet: a key is created there")
        return cls(key)

    def of(self, name: str) -> str:
        """Return `P-` and 12 hex digits of HMAC-SHA256 of the name; without a key, or for a pseudonym, the name."""
        if self.key is None or _PSEUDONYM.fullmatch(name):
            return name
        return f"P-{hmac.new(self.key, name.encode(), 'sha256').hexdigest()[:12]}"


def _make_key(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb", opener=partial(os.open, mode=0o600)) as file:
            file.write(secrets.token_bytes(KEY_BYTES))
    except OSError as error:
        raise cannot_write(error, path) from error


def _is_in(path: str, project: str) -> bool:
    return os.path.dirname(project) != project and Path(path).is_relative_to(project)


def _short_flag(word: str) -> str:
    """Shorten the path in one word of a command line: `--stores=/data/alice/stores` -> `--stores=stores`."""
    flag, equals, value = word.partition("=")
    return f"{flag}={_short(value)}" if equals and flag.startswith("-") else _short(word)


def _short(text: str) -> str:
    """Shorten a path that is absolute or leads out of the project; return any other text unchanged."""
    leads_out = os.path.isabs(text) or text.startswith("~") or ".." in Path(text).parts
    return shareable_path(os.path.expanduser(text), os.getcwd()) if leads_out else text
