"""Pretraining of an encoder on stores without labels: views of slides, and an objective that compares the views."""

from typing import TYPE_CHECKING

from preprocessing.jobs.lazy_names import lazy_names

if TYPE_CHECKING:
    from longvit.config import PretrainConfig as PretrainConfig
    from longvit.pretraining.pretrain import run as run

__all__ = ["PretrainConfig", "run"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PretrainConfig": "longvit.config:PretrainConfig",
        "run": "longvit.pretraining.pretrain:run",
    },
)
