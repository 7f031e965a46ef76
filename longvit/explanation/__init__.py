"""Explanation of predictions: model + store -> contribution of each part of a slide.

The names below are public. Each is imported when it is first used, so that the viewer does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longvit.explanation.attention import attention_rollout as attention_rollout
    from longvit.explanation.attention import received_attention as received_attention
    from longvit.explanation.attribution import token_contributions as token_contributions
    from longvit.explanation.overlay import heatmap as heatmap

_HOME = {
    "attention_rollout": "longvit.explanation.attention",
    "received_attention": "longvit.explanation.attention",
    "token_contributions": "longvit.explanation.attribution",
    "heatmap": "longvit.explanation.overlay",
    "show": "longvit.viewer.notebook",
}

__all__ = ["attention_rollout", "heatmap", "received_attention", "show", "token_contributions"]


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
