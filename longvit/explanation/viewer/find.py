"""What the user names - a run, stores, a store, explanations - and which slides, predictions and files belong to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from longvit.config import ViewConfig
from longvit.explanation.viewer.explained import DOCUMENT, ShownExplanation, find_explanations
from longvit.explanation.viewer.heldout import HeldOut
from preprocessing.errors import ConfigError
from preprocessing.manifest import SlideEntry, read_manifest
from preprocessing.rules import read_attributes
from preprocessing.store import find_stores


@dataclass(frozen=True)
class Found:
    """Everything that the page shows."""

    title: str
    """What the user named."""
    stores: Mapping[str, Path]
    """Slide id -> store."""
    explanations: Mapping[str, ShownExplanation] = field(default_factory=dict)
    """Slide id -> explanation, of slides that have one."""
    slides: Mapping[str, SlideEntry] = field(default_factory=dict)
    """Slide id -> slide file, where the user said where they are."""
    held_out: HeldOut | None = None
    """Predictions of the run."""


def find(config: ViewConfig) -> Found:
    """Look at what the user named.

    Raises:
        ConfigError: It is none of what can be shown.
        StoreError: There are no stores, or a store cannot be read.
        CohortError: Predictions, explanations or the list of slides cannot be read.
    """
    source = config.source
    explanations = find_explanations(config.explanations) if config.explanations else {}
    held_out = None
    if _is_store(source):
        stores = {read_attributes(source).slide_id: source}
    elif (source / "predictions.csv").is_file() and (source / "config.yaml").is_file():
        held_out = HeldOut.read(source / "predictions.csv")
        stores = find_stores(config.stores or _stores_of(source / "config.yaml"))
    elif (source / DOCUMENT).is_file() or any(source.glob(f"*/{DOCUMENT}")):
        explanations = find_explanations(source) | explanations
        stores = _stores_explained(explanations, config.stores)
    elif any(_is_store(path) for path in source.glob("*.zarr")):
        stores = find_stores(source)
    else:
        what = "this is no run, no store, no folder of stores and no folder of explanations"
        fix = "name the folder of a `longvit finetune`, of a `longvit tile`, or of a `longvit explain`"
        raise ConfigError(what if source.exists() else "there is nothing here", where=source, fix=fix)
    slides = {entry.slide_id: entry for entry in read_manifest(config.slides)} if config.slides else {}
    return Found(source.resolve().name, stores, explanations, slides, held_out)


def _is_store(path: Path) -> bool:
    return path.suffix == ".zarr" and path.is_dir()


def _stores_of(settings: Path) -> Path:
    """Where a run found its stores; only that is read, so that runs of any version can be shown."""
    try:
        return Path(yaml.safe_load(settings.read_text(encoding="utf-8"))["stores"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        fix = "say where they are with --stores"
        raise ConfigError("the run does not say where its stores are", where=settings, fix=fix) from None


def _stores_explained(explanations: Mapping[str, ShownExplanation], stores: Path | None) -> dict[str, Path]:
    """The stores that were explained, from where they were then or are now."""
    found = find_stores(stores) if stores else {name: one.store for name, one in explanations.items()}
    missing = [name for name in explanations if not _is_store(found.get(name, Path()))]
    if missing:
        what = f"the store of {missing[0]} is not where it was explained" + (
            f", nor are those of {len(missing) - 1} more" if len(missing) > 1 else ""
        )
        raise ConfigError(what, where=found.get(missing[0], stores), fix="say where the stores are with --stores")
    return {name: found[name] for name in sorted(explanations)}
