"""Finetuning: encoder + labels -> models that predict subtype or survival, one per fold, and their predictions."""

from typing import TYPE_CHECKING

from preprocessing.jobs.lazy_names import lazy_names

if TYPE_CHECKING:
    from longvit.config import FinetuneConfig as FinetuneConfig
    from longvit.finetuning.finetune import run as run

__all__ = ["FinetuneConfig", "run"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FinetuneConfig": "longvit.config:FinetuneConfig",
        "run": "longvit.finetuning.finetune:run",
    },
)
