"""Explanation of predictions: model + store -> contribution of each part of a slide.

The names below are public. Each is imported when it is first used, so that the viewer does not wait for torch.
"""

from typing import TYPE_CHECKING

from preprocessing.jobs.lazy_names import lazy_names

if TYPE_CHECKING:
    from longvit.config import ExplainConfig as ExplainConfig
    from longvit.explanation.attention import attention_rollout as attention_rollout
    from longvit.explanation.attention import received_attention as received_attention
    from longvit.explanation.attribution import token_contributions as token_contributions
    from longvit.explanation.explain import run as run
    from longvit.explanation.overlay import heatmap as heatmap

__all__ = ["ExplainConfig", "attention_rollout", "heatmap", "received_attention", "run", "show", "token_contributions"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ExplainConfig": "longvit.config:ExplainConfig",
        "attention_rollout": "longvit.explanation.attention:attention_rollout",
        "heatmap": "longvit.explanation.overlay:heatmap",
        "received_attention": "longvit.explanation.attention:received_attention",
        "run": "longvit.explanation.explain:run",
        "show": "longvit.viewer.notebook:show",
        "token_contributions": "longvit.explanation.attribution:token_contributions",
    },
)
