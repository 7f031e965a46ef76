"""Encoding of stores as slide vectors: `encode_slide` for one slide, `longvit encode` for a folder of stores."""

from typing import TYPE_CHECKING

from preprocessing.jobs.lazy_names import lazy_names

if TYPE_CHECKING:
    from longvit.config import EncodeConfig as EncodeConfig
    from longvit.encoding.encode import run as run
    from longvit.encoding.slide import encode_slide as encode_slide

__all__ = ["EncodeConfig", "encode_slide", "run"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "EncodeConfig": "longvit.config:EncodeConfig",
        "encode_slide": "longvit.encoding.slide:encode_slide",
        "run": "longvit.encoding.encode:run",
    },
)
