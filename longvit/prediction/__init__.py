"""Predictions of a run's models on new slides."""

from typing import TYPE_CHECKING

from preprocessing.jobs.lazy_names import lazy_names

if TYPE_CHECKING:
    from longvit.config import PredictConfig as PredictConfig
    from longvit.prediction.predict import run as run

__all__ = ["PredictConfig", "run"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PredictConfig": "longvit.config:PredictConfig",
        "run": "longvit.prediction.predict:run",
    },
)
