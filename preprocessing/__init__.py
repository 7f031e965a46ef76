"""Slide -> store: conversion of whole-slide images to patch stores of tissue tiles. Never imports torch or longvit.

The names below are public. Each is imported at its first use, so that a command line that needs only a config does not
wait for zarr and OpenCV.

>>> from preprocessing import TileConfig, open_store, tile_slides
>>> report = tile_slides(TileConfig(slides="slides", out="stores"))  # doctest: +SKIP
>>> open_store("stores/slide-1.zarr").read_tiles([0]).shape  # doctest: +SKIP
(1, 256, 256, 3)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preprocessing.config import TileConfig as TileConfig
    from preprocessing.config import TissueConfig as TissueConfig
    from preprocessing.errors import CohortError as CohortError
    from preprocessing.errors import PipelineError as PipelineError
    from preprocessing.errors import SlideError as SlideError
    from preprocessing.errors import StoreError as StoreError
    from preprocessing.slides.slide import Slide as Slide
    from preprocessing.slides.slide import read_slide as read_slide
    from preprocessing.store.features import add_embeddings as add_embeddings
    from preprocessing.store.store import PatchStore as PatchStore
    from preprocessing.store.store import find_stores as find_stores
    from preprocessing.store.store import open_store as open_store
    from preprocessing.store.store import problems as problems
    from preprocessing.tile import run as tile_slides

_HOME = {
    "TileConfig": "config",
    "TissueConfig": "config",
    "CohortError": "errors",
    "PipelineError": "errors",
    "SlideError": "errors",
    "StoreError": "errors",
    "Slide": "slides.slide",
    "read_slide": "slides.slide",
    "PatchStore": "store.store",
    "add_embeddings": "store.features",
    "find_stores": "store.store",
    "open_store": "store.store",
    "problems": "store.store",
    "tile_slides": "tile",
}

__all__ = [
    "CohortError",
    "PatchStore",
    "PipelineError",
    "Slide",
    "SlideError",
    "StoreError",
    "TileConfig",
    "TissueConfig",
    "add_embeddings",
    "find_stores",
    "open_store",
    "problems",
    "read_slide",
    "tile_slides",
]


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME[name]}")
    value = module.run if name == "tile_slides" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
