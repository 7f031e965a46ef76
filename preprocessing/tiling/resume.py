"""Decisions whether a finished store is up to date with its slide and settings (under 10 ms per store)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocessing.config import TileConfig
from preprocessing.errors import ConfigError, StoreError, VersionError
from preprocessing.slides.source import has_changed
from preprocessing.store.arrays import REDO
from preprocessing.store.rules import read_attributes, read_metadata
from preprocessing.store.schema import SCHEMA_VERSION, StoreAttributes, encoders
from preprocessing.tiling.manifest import SlideEntry
from preprocessing.tiling.tile_slide import GEOJSON_FRAME, store_config
from preprocessing.tissue.masks import find_mask


def refuse_other_settings(entries: Sequence[SlideEntry], config: TileConfig) -> str:
    """Refuse to tile into a folder of stores made with other settings, before any slide is read.

    Damaged stores are skipped here, as they are tiled again.

    Returns:
        Sentence with the number of stores and features that `--overwrite` will replace; empty if there are none.

    Raises:
        ConfigError: Stores have other settings or another schema version, and `--overwrite` was not given.
    """
    changed: dict[str, tuple[Any, Any]] = {}
    existing, other = [], []
    for path in (config.out / f"{entry.slide_id}.zarr" for entry in entries):
        try:
            differing = changed_settings(read_attributes(path), config)
        except VersionError:
            differing = {"schema version": ("another", SCHEMA_VERSION)}
        except StoreError:  # missing or damaged
            continue
        existing.append(path)
        other += [path] if differing else []
        changed |= differing
    if config.overwrite:
        return f"replacing {_counted(existing)}" if existing else ""
    if not other:
        return ""
    settings = ", ".join(f"{key} ({was} there, {now} now)" for key, (was, now) in changed.items())
    raise ConfigError(
        f"{_counted(other)} in this folder were made with other settings: {settings}",
        where=config.out,
        fix="choose another --out, give the settings of those stores, or replace them with --overwrite",
    )


def reason_to_tile(entry: SlideEntry, path: Path, config: TileConfig) -> str | None:
    """Return the reason to tile a slide: None if its store is up to date, empty if it has no store, else a sentence.

    Raises:
        StoreError: The store is not named after its slide, has another version, or cannot be read. It is not replaced.
        ConfigError: The store was made with other settings, and `--overwrite` was not given.
    """
    if not path.exists():
        return ""
    if config.overwrite:
        return "--overwrite was given"
    try:
        old = read_metadata(path).attributes
    except StoreError as error:
        if error.fix != REDO and (path / "zarr.json").exists():
            raise
        return f"its store was damaged ({error.what})"
    refuse_other_settings([entry], config)  # another run may have written the store since this run began
    manifest_mpp = old.mpp_level0 if old.mpp_source == "manifest" else None
    reasons = {
        "the resolution in the manifest has changed": lambda: entry.mpp != manifest_mpp,
        "the slide has changed": lambda: has_changed(entry.path, old.source, path / "zarr.json"),
        "its mask has changed": lambda: old.mask and has_changed(_mask(entry, config), old.mask, path / "zarr.json"),
    }
    return next((reason for reason, holds in reasons.items() if holds()), None)


def changed_settings(old: StoreAttributes, config: TileConfig) -> dict[str, tuple[Any, Any]]:
    """Return each setting that differs between a store and the config, with both values."""
    ours, theirs = _flat(store_config(config)), _flat(old.config)
    if old.mpp_source != "flag":  # the flag is for slides that do not state their resolution
        ours.pop("mpp_if_missing")
    if old.mpp_source in ("manifest", "metadata"):  # the objective is for slides that state nothing better
        ours.pop("mpp_from_objective")
    if old.bounds_l0 and old.mask and old.mask.name.endswith(".geojson"):  # version 0.2 had the frame "slide" only
        ours[GEOJSON_FRAME], theirs = config.tissue.geojson_frame, {GEOJSON_FRAME: "slide"} | theirs
    theirs = {"pieces": False} | theirs
    if not config.pieces:
        ours.pop("piece_gap_um")
    ours["tissue.masks"], theirs["tissue.masks"] = config.tissue.masks is not None, old.mask is not None
    return {key: (theirs.get(key), ours[key]) for key in sorted(ours) if ours[key] != theirs.get(key)}


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    tissue = config.get("tissue")
    nested = {f"tissue.{key}": value for key, value in tissue.items()} if isinstance(tissue, dict) else {}
    return {key: value for key, value in config.items() if key != "tissue"} | nested


def _counted(stores: Sequence[Path]) -> str:
    features = sum(len(encoders(path)) for path in stores)
    sets = {0: "", 1: " with 1 set of features"}.get(features, f" with {features} sets of features")
    return f"{len(stores)} store{'s' * (len(stores) != 1)}{sets}"


def _mask(entry: SlideEntry, config: TileConfig) -> Path:
    assert config.tissue.masks is not None, "a store with a mask requires settings with masks"
    return find_mask(config.tissue.masks, entry.slide_id)
