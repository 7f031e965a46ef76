"""Slide -> store: conversion of whole-slide images to patch stores of tissue tiles. Never imports torch or longvit.

The names below are public. Each is imported at its first use, so that a command line that needs only a config does not
wait for zarr and OpenCV.

>>> from preprocessing import TileConfig, open_store, tile_slides
>>> report = tile_slides(TileConfig(slides="slides", out="stores"))  # doctest: +SKIP
>>> open_store("stores/slide-1.zarr").read_tiles([0]).shape  # doctest: +SKIP
(1, 256, 256, 3)
"""

from typing import TYPE_CHECKING

from preprocessing.jobs.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "TileConfig": "preprocessing.config:TileConfig",
        "TissueConfig": "preprocessing.config:TissueConfig",
        "CohortError": "preprocessing.errors:CohortError",
        "PipelineError": "preprocessing.errors:PipelineError",
        "SlideError": "preprocessing.errors:SlideError",
        "StoreError": "preprocessing.errors:StoreError",
        "Slide": "preprocessing.slides.slide:Slide",
        "read_slide": "preprocessing.slides.slide:read_slide",
        "PatchStore": "preprocessing.store.store:PatchStore",
        "add_embeddings": "preprocessing.store.features:add_embeddings",
        "find_stores": "preprocessing.store.store:find_stores",
        "open_store": "preprocessing.store.store:open_store",
        "problems": "preprocessing.store.store:problems",
        "tile_slides": "preprocessing.tile:run",
    },
)
