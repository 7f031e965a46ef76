"""Identity of the files and stores that a run reads: recorded by the run, and compared at the next start."""

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from longvit.config import TokenInput
from preprocessing.errors import ConfigError, few
from preprocessing.jobs.files import write_whole
from preprocessing.store.piece import split_path
from preprocessing.store.rules import embedding_attributes, n_tiles, read_attributes

_PARTS = ("source", "settings", "schema", "tiles", "features")
_SOURCES, _SETTINGS = {"source", "mask"}, {"config", "mpp", "tile_st", "grid_shape", "side_l0"}
_as_json = json.JSONEncoder(sort_keys=True).encode
_MAX_BYTES = 1 << 28
"""Largest size of a file of inputs in bytes. 100,000 slides take 20 MB, so no run writes a larger file."""


class RecordedInputs(BaseModel):
    """Settings, files and stores of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recorded: str = ""
    """Time of the recording, UTC."""
    settings: dict[str, Any] = {}
    """Settings that determine the result, without paths."""
    files: dict[str, str] = {}
    """Hash of each file, by its role and name."""
    stores: dict[str, tuple[str, ...]] = {}
    """Hashes of source, settings and features of each slide's store, with its schema and number of tiles."""

    def save(self, path: Path) -> None:
        """Write the inputs to a file, with the current time."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        document = self.model_copy(update={"recorded": now}).model_dump(mode="json")
        write_whole(path, json.dumps(document, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "RecordedInputs":
        """Read the inputs of an earlier start.

        Raises:
            ConfigError: The file is missing (a run of version 0.1.0) or damaged.
        """
        fix = "choose another --out, or start again with --overwrite, which deletes the old result"
        try:
            with path.open("rb") as file:
                return cls.model_validate_json(file.read(_MAX_BYTES))
        except FileNotFoundError:
            what = "the run in this folder has not recorded its inputs, so they cannot be compared"
            raise ConfigError(what, where=path.parent, fix=fix) from None
        except (ValidationError, ValueError) as error:
            raise ConfigError("the record of the run's inputs is damaged", where=path, fix=fix) from error


class Differences(NamedTuple):
    """Differences between two records as sentences, and the slides whose store changed."""

    files: list[str]
    stores: list[str]
    changed: frozenset[str]


def read_inputs(
    files: Mapping[str, Path | Iterable[Path] | None],
    stores: Mapping[str, Path] | None = None,
    source: TokenInput | None = None,
) -> RecordedInputs:
    """Return the identity of a run's inputs.

    Args:
        files: One or several files by their role (`table`, `splits`); None for a role without a file in this run.
        stores: Store of each slide.
        source: Input of the encoder, which sets whether features are read, and of which tile encoder.

    Raises:
        StoreError: The metadata of a store cannot be read.
    """
    named = {}
    for role, given in files.items():
        paths = [] if given is None else [given] if isinstance(given, Path) else list(given)
        named |= {f"{role} {path.name}": hash_file(path) for path in paths}
    encoder = source.features if source else None
    return RecordedInputs(
        files=named, stores={slide: store_identity(path, encoder) for slide, path in (stores or {}).items()}
    )


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store_identity(path: Path, encoder: str | None = None) -> tuple[str, ...]:
    """Return hashes of a store's origin and settings, as in `_PARTS`, from its attributes alone (0.1 ms).

    Args:
        path: The store.
        encoder: Tile encoder whose features the run reads.

    Raises:
        StoreError: The store's metadata cannot be read, or the store has no such features.
    """
    path, _ = split_path(path)  # the number of a piece is in the slide's id
    attributes = read_attributes(path)
    sources = attributes.model_dump(mode="json", include=_SOURCES)
    settings = attributes.model_dump(mode="json", include=_SETTINGS)
    features = embedding_attributes(path, encoder) if encoder else None
    return (
        _short(sources),
        _short(settings),
        str(attributes.schema_version),
        str(n_tiles(path)),
        _short(features) if encoder else "",
    )


def differences(earlier: RecordedInputs, now: RecordedInputs) -> Differences:
    """Return the differences between two records."""
    files = [f"{name} has changed" for name in now.files if earlier.files.get(name, now.files[name]) != now.files[name]]
    files += [f"{name} is new" for name in now.files if name not in earlier.files]
    files += [f"{name} is no longer given" for name in earlier.files if name not in now.files]
    changed = {
        slide: ", ".join(part for part, a, b in zip(_PARTS, earlier.stores[slide], is_now, strict=False) if a != b)
        for slide, is_now in now.stores.items()
        if earlier.stores.get(slide, is_now) != is_now
    }
    groups = {
        "changed": [f"{slide} ({what})" for slide, what in changed.items()],
        "new": [slide for slide in now.stores if slide not in earlier.stores],
        "gone": [slide for slide in earlier.stores if slide not in now.stores],
    }
    stores = [f"{_counted(names)} {what}: {few(names)}" for what, names in groups.items() if names]
    return Differences(files, stores, frozenset(changed))


def _counted(names: list[str]) -> str:
    return "1 store is" if len(names) == 1 else f"{len(names)} stores are"


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON
    return hashlib.sha256(_as_json(value).encode()).hexdigest()[:16]
