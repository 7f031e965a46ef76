"""Whether a finished store is still what its slide and the settings would give, told in under ten milliseconds."""

from pathlib import Path

from pydantic import ValidationError

from preprocessing.config import TileConfig
from preprocessing.errors import StoreError
from preprocessing.manifest import SlideEntry
from preprocessing.masks import find_mask
from preprocessing.schema import SCHEMA_VERSION, StoreAttributes, read_attributes
from preprocessing.slide_to_store import store_config
from preprocessing.source import has_changed


def reason_to_tile(entry: SlideEntry, path: Path, config: TileConfig) -> str | None:
    """Why a slide has to be tiled: empty if it has no store, a sentence if it has one of no use, None if it is done.

    Raises:
        StoreError: What has the store's name is no store of ours, which must not be replaced.
    """
    if not path.exists():
        return ""
    if not (path / "xy_l0").exists():  # no other program's Zarr has such an array
        raise StoreError(
            "something that is no patch store has the name of this slide's store",
            where=path,
            fix="move it away, or choose another --out",
        )
    try:
        attributes = read_attributes(path)
        if attributes.get("schema_version") != SCHEMA_VERSION or attributes.get("complete") is not True:
            return "its store was unfinished or of another version"
        old = StoreAttributes.model_validate(attributes)
    except (StoreError, ValidationError):
        return "its store was damaged"
    settings = store_config(config)
    if old.mpp_source != "flag":  # the flag is for slides that do not state their resolution
        settings.pop("mpp_if_missing")
    if old.mpp_source in ("manifest", "metadata"):  # and the objective for those that state nothing better
        settings.pop("mpp_from_objective")
    changed = sorted(key for key in settings if settings[key] != old.config.get(key))
    changed += ["tissue.masks"] if (config.tissue.masks is None) != (old.mask is None) else []
    manifest_mpp = old.mpp_level0 if old.mpp_source == "manifest" else None
    reasons = {
        "it was asked for again": lambda: config.overwrite,
        f"settings have changed: {', '.join(changed)}": lambda: bool(changed),
        "the resolution in the manifest has changed": lambda: entry.mpp != manifest_mpp,
        "the slide has changed": lambda: has_changed(entry.path, old.source, path / "zarr.json"),
        "its mask has changed": lambda: old.mask and has_changed(_mask(entry, config), old.mask, path / "zarr.json"),
    }
    return next((reason for reason, holds in reasons.items() if holds()), None)


def _mask(entry: SlideEntry, config: TileConfig) -> Path:
    assert config.tissue.masks is not None, "a store with a mask and settings without one differ in their settings"
    return find_mask(config.tissue.masks, entry.slide_id)
