"""Search of the user's source (a run, stores, a store or explanations): its slides, predictions and files."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longvit.config import ViewConfig
from longvit.evaluation.run_files import CONFIG_FILE, training_settings
from longvit.formats.explanation_json import EXPLANATION, ExplanationFolder, find_explanations, is_explanation
from longvit.formats.predictions_csv import PREDICTIONS
from longvit.runs.privacy import Pseudonyms
from longvit.viewer.heldout import HeldOutPredictions
from preprocessing.errors import ConfigError, StoreError, few
from preprocessing.store.piece import all_pieces, split_path
from preprocessing.store.rules import read_attributes
from preprocessing.store.store import find_stores, open_store
from preprocessing.tiling.manifest import SlideEntry, read_manifest

SHOWN = ("tiles", "overview", "overview_mask", "tissue")
"""Arrays of a store that the page shows."""
_OWN_NAMES = Pseudonyms()


@dataclass(frozen=True)
class ViewerSources:
    """Content of the page."""

    title: str
    """Name of the source."""
    stores: Mapping[str, Path]
    """Slide id -> store."""
    explanations: Mapping[str, ExplanationFolder] = field(default_factory=dict)
    """Slide id -> explanation, for slides that have one."""
    slides: Mapping[str, SlideEntry] = field(default_factory=dict)
    """Slide id -> slide file, if the user gave the files; these ids are never pseudonyms."""
    held_out: HeldOutPredictions | None = None
    """Predictions of the run."""
    names: Pseudonyms = _OWN_NAMES
    """Names of patients and slides on the page."""


def find(config: ViewConfig) -> ViewerSources:
    """Find the slides, predictions and explanations of the user's source.

    Raises:
        ConfigError: The source is not of a kind that can be shown.
        StoreError: There are no stores, or a store cannot be read, or no store has pictures.
        CohortError: Predictions, explanations or the list of slides cannot be read.
    """
    source, names, held_out = config.source, Pseudonyms.read(config.pseudonyms), None
    explanations = _explanations(config.explanations, names) if config.explanations else {}
    if _is_store(source):
        stores = {names.of(read_attributes(source).slide_id): source}
    elif (source / PREDICTIONS).is_file() and (source / "config.yaml").is_file():
        held_out = HeldOutPredictions.read(source / PREDICTIONS).under(names)
        stores = _stores(config.stores or _stores_of(source / PREDICTIONS), names)
    elif is_explanation(source) or any(source.glob(f"*/{EXPLANATION}")):
        explanations = _explanations(source, names) | explanations
        stores = _stores_explained(explanations, config.stores, names)
    elif any(_is_store(path) for path in source.glob("*.zarr")):
        stores = _stores(source, names)
    else:
        what = "this is not a run, a store, a folder of stores or a folder of explanations"
        fix = "name the folder of a `longvit finetune`, of a `longvit tile`, or of a `longvit explain`"
        raise ConfigError(what if source.exists() else "there is nothing here", where=source, fix=fix)
    slides = {entry.slide_id: entry for entry in read_manifest(config.slides)} if config.slides else {}
    title = source.resolve().name if config.pseudonyms is None else "Slides"  # a folder may have the name of a slide
    return ViewerSources(title, _with_pictures(stores), explanations, slides, held_out, names)


def _explanations(folder: Path, names: Pseudonyms) -> dict[str, ExplanationFolder]:
    found = {names.of(slide_id): one for slide_id, one in find_explanations(folder).items()}
    return {name: one.model_copy(update={"slide_id": name}) for name, one in found.items()}


def _stores(folder: Path, names: Pseudonyms) -> dict[str, Path]:
    stores = {names.of(slide_id): path for slide_id, path in find_stores(folder).items()}
    return dict(sorted(stores.items()))  # in an order that does not reveal the order of the ids


def _with_pictures(stores: dict[str, Path]) -> dict[str, Path]:
    """Return the stores with all arrays that the page shows, and print a warning with the names of the others.

    Raises:
        StoreError: No store has them.
    """
    lacks = {name: absent for name, path in stores.items() if (absent := _absent(path))}
    if not lacks:
        return stores
    if len(lacks) == len(stores):
        name, absent = next(iter(lacks.items()))
        open_store(stores[name]).require(absent)
    named = few([f"{name} (no {absent})" for name, absent in lacks.items()])
    what = f"{len(lacks)} of {len(stores)} slides are not shown, because their stores lack pictures: {named}"
    print(f"warning: {what}", file=sys.stderr)
    return {name: path for name, path in stores.items() if name not in lacks}


def _absent(path: Path) -> str | None:
    """Return the first array that a store lacks; None if it lacks none, or if it is damaged, as the page will show."""
    try:
        arrays = read_attributes(split_path(path)[0]).arrays
    except StoreError:
        return None
    return next((name for name in SHOWN if name not in arrays), None)


def _is_store(path: Path) -> bool:
    whole, _ = split_path(path)
    return whole.suffix == ".zarr" and whole.is_dir()


def _stores_of(predictions: Path) -> Path:
    """Return the folder of stores of a run; no other setting is read, so that runs of any version can be shown.

    Raises:
        ConfigError: The settings of the run cannot be read, or name no folder of stores.
    """
    settings = training_settings(predictions)
    stores = settings.get("stores") if isinstance(settings, dict) else None
    if not isinstance(stores, str):
        where, fix = predictions.with_name(CONFIG_FILE), "name their folder with --stores"
        raise ConfigError("the run does not name the folder of its stores", where=where, fix=fix)
    return Path(stores)


def _stores_explained(
    explanations: Mapping[str, ExplanationFolder], stores: Path | None, names: Pseudonyms
) -> dict[str, Path]:
    """Return the stores that were explained, from their folders at that time or now.

    Of the path in an explanation only the folder is used, and in this folder only a store of the slide's name.
    """
    if stores is not None:
        found = _stores(stores, names)
    else:
        folders = {os.path.dirname(os.path.abspath(one.folder / one.store)) for one in explanations.values()}
        known = [path for folder in sorted(folders) if os.path.isdir(folder) for path in Path(folder).glob("*.zarr")]
        found = {names.of(path.name.removesuffix(".zarr")): path for path in known}
    if unknown := set(explanations) - set(found):  # explanations of pieces
        pieces = all_pieces({path.stem: path for path in found.values()})
        found |= {name: path for piece, path in pieces.items() if (name := names.of(piece)) in unknown}
    missing = [name for name in sorted(explanations) if name not in found or not _is_store(found[name])]
    if missing:
        more = f", nor are the stores of {len(missing) - 1} more slides" if len(missing) > 1 else ""
        fix = "name the folder of stores with --stores; if the slide's name is a pseudonym, give its key: --pseudonyms"
        raise ConfigError(
            f"the store of {missing[0]} is not where it was explained{more}",
            where=stores or explanations[missing[0]].folder / EXPLANATION,
            fix=fix,
        )
    return {name: found[name] for name in sorted(explanations)}
