"""Files and folders that a verb reads: settings that name them are marked, and checked before anything is loaded."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from preprocessing.errors import ConfigError


@dataclass(frozen=True)
class RequiredInput:
    """Mark of a setting that names a file or folder, which must exist before a verb starts.

    Args:
        noun: Name of the file or folder in errors.
        form: Accepted forms.
        fix: Fix of the error if the file or folder is missing.
        holds: Patterns of file names; a folder must contain a match of at least one.
        empty: Sentence of the error if a folder contains no match.
    """

    noun: str
    form: Literal["file", "folder", "either"] = "file"
    fix: str = "check the path"
    holds: tuple[str, ...] = ()
    empty: str = ""

    def problem(self, path: Path) -> str | None:
        """Return a sentence about the error of a path, or None if it has none."""
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode) and self.form != "file":
                bare = self.holds and not any(any(path.glob(pattern)) for pattern in self.holds)
                return self.empty if bare else None
        except (FileNotFoundError, NotADirectoryError):
            return f"the {self.noun} does not exist"
        except OSError as error:
            return f"the {self.noun} cannot be read: {error.strerror}"
        if stat.S_ISREG(mode) and self.form != "folder":
            return None
        found = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a device or a pipe"
        return f"the {self.noun} is {found}, not a {'file' if self.form == 'file' else 'folder'}"


_TILE = "make them with `longvit tile --slides SLIDES --out FOLDER`"
_NO_STORES = "there are no stores"
_NO_SPLITS = "there is no splits_<k>.csv"
_NO_RUN = "this is not the folder of a run"
_NO_CHECKPOINT = "the checkpoint does not exist"
TABLE = RequiredInput("table")
CLINICAL = RequiredInput("clinical table")
PREDICTIONS = RequiredInput("file of predictions")
SETTINGS = RequiredInput("settings file")
CHECKPOINT = RequiredInput("checkpoint")
ENCODER = RequiredInput("checkpoint", "either", holds=("encoder.safetensors",), empty=_NO_CHECKPOINT)
WEIGHTS = RequiredInput("file of weights")
MODEL = RequiredInput(
    "model",
    "either",
    "give the folder of a finished `longvit finetune`, or fold_<k>/model.safetensors in it",
    ("config.yaml", "model.safetensors"),
    "this is not the folder of a run or of a fold",
)
STORES = RequiredInput("folder of stores", "folder", _TILE, ("*.zarr",), _NO_STORES)
ANY_STORES = RequiredInput("store or folder of stores", "folder", _TILE, ("*.zarr", "zarr.json"), _NO_STORES)
SPLITS = RequiredInput(
    "folder or file of splits", "either", "check the path of the splits", ("splits_*.csv", "train_*.csv"), _NO_SPLITS
)
RUN = RequiredInput(
    "run", "folder", "give --run the folder of a finished `longvit finetune`", ("config.yaml",), _NO_RUN
)
SLIDES = RequiredInput("slide, folder or manifest", "either")
SOURCE = RequiredInput(
    "source", "folder", "name the folder of a `longvit finetune`, of a `longvit tile`, or of a `longvit explain`"
)
EXPLANATIONS = RequiredInput("folder of explanations", "folder", "make them: longvit explain --out FOLDER")
FOLDER = RequiredInput("folder", "folder")


def require_inputs(config: BaseModel) -> None:
    """Check that every marked file and folder of a config exists; loads no torch.

    Raises:
        ConfigError: The first missing path, as an absolute path; the others are notes.
    """
    missing = [(mark, path, what) for mark, path in _marked(config) if (what := mark.problem(path))]
    if missing:
        (mark, path, what), *others = missing
        error = ConfigError(what, where=path.absolute(), fix=mark.fix)
        for _, path, what in others:
            error.add_note(f"{what}: {path.absolute()}")
        raise error


def _marked(config: BaseModel) -> Iterator[tuple[RequiredInput, Path]]:
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        for mark in field.metadata:
            if isinstance(mark, RequiredInput):
                paths = value.values() if isinstance(value, dict) else [value]
                yield from ((mark, path) for path in paths if path is not None)
        if isinstance(value, BaseModel):
            yield from _marked(value)
