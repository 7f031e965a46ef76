"""One file of the page: what it is, when it changes, and how it is made."""

import json
from collections.abc import Callable
from dataclasses import dataclass

HTML, CSS, SCRIPT = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"
JPEG, PNG, TEXT = "image/jpeg", "image/png", "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Resource:
    """One file of the page."""

    kind: str
    """Its media type."""
    tag: str
    """Changes when the content changes."""
    make: Callable[[], bytes]
    """Makes the content."""


def script(tag: str, path: str, value: Callable[[], object]) -> Resource:
    """Data as a script, because a page that was opened from disk may load scripts but no JSON.

    Args:
        tag: Changes when the value changes.
        path: Under which the page asks for it.
        value: Gives the value; whatever JSON can hold.
    """
    return Resource(SCRIPT, tag, lambda: f"LongViT.receive({_json(path)}, {_json(value())});\n".encode())


def _json(value: object) -> str:
    """JSON that can stand inside of a page: what would end its script is escaped."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
