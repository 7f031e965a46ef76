"""File of the page: its media type, its version tag, and the function that makes its content."""

import json
from collections.abc import Callable
from dataclasses import dataclass

HTML, CSS, SCRIPT = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"
JPEG, PNG, TEXT = "image/jpeg", "image/png", "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Resource:
    """File of the page."""

    kind: str
    """Media type."""
    tag: str
    """Version tag, which changes when the content changes."""
    make: Callable[[], bytes]
    """Function that returns the content."""


def script(tag: str, path: str, value: Callable[[], object]) -> Resource:
    """Return data as a script: a page opened from disk may load scripts but no JSON.

    Args:
        tag: Version tag, which changes when the value changes.
        path: Path under which the page requests the script.
        value: Function that returns the value; any value that JSON can represent.
    """
    return Resource(SCRIPT, tag, lambda: f"LongViT.receive({_json(path)}, {_json(value())});\n".encode())


def _json(value: object) -> str:
    """Return JSON that is safe inside a page: characters that would end its script are escaped."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
