"""An explanation on disk, made by others perhaps: `explanation.json`, checked; `scores.csv`, read when asked for."""

import json
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from longvit.runs.privacy import Pseudonyms
from preprocessing.errors import CohortError
from preprocessing.jobs.files import is_plain_name

DOCUMENT, SCORES = "explanation.json", "scores.csv"
AGAIN = "explain the slide again: longvit explain"
MOST_BYTES = {DOCUMENT: 4_000_000, SCORES: 1_000_000_000}
"""Size of each file; larger ones are refused before they are read."""
MOST_TOKENS = 4_000_000
"""Rows of `scores.csv`: four slides of a million tokens."""
MOST_ROWS = 1_000_000
"""Rows and columns of the grid of tokens."""
_CHECKED = ConfigDict(frozen=True, allow_inf_nan=False, str_max_length=1000)


def _plain(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError("is not a plain name")
    return name


class ShownLayer(BaseModel):
    """One column of `scores.csv`, and how it is drawn."""

    model_config = _CHECKED

    key: str
    """Name of the column."""
    method: str
    """How it was computed."""
    label: str
    """What the picker calls it."""
    meaning: str
    """What the scale measures."""
    signed: bool
    """Whether 0 divides what speaks for from what speaks against."""
    vmin: float
    """Score of the first colour."""
    vmax: float
    """Score of the last colour."""
    colours: tuple[Annotated[str, Field(pattern="^#[0-9a-f]{6}$")], ...] = Field(min_length=2, max_length=256)
    """Colours in even steps between the two, `#rrggbb`."""

    @model_validator(mode="after")
    def _rises(self) -> "ShownLayer":
        if self.vmin >= self.vmax:
            raise ValueError("vmin is not below vmax")
        return self


class ShownExplanation(BaseModel):
    """The explanation of one slide.

    >>> ShownExplanation.read(Path("explanations/slide-1")).layers[0].label  # doctest: +SKIP
    'Share of the logit of LUSC'
    """

    model_config = _CHECKED

    folder: Path
    """Where it lies."""
    slide_id: Annotated[str, AfterValidator(_plain)]
    """The slide."""
    store: str
    """Its store when it was explained, as a path from the folder; only its folder is looked at."""
    model: str
    """The model that predicted."""
    target: str
    """What is explained."""
    prediction: dict[str, float] = Field(min_length=1, max_length=1000)
    """Probability of each class, or the log hazard."""
    side_l0: tuple[PositiveFloat, PositiveFloat]
    """Width and height of a token, level-0 pixels."""
    layers: tuple[ShownLayer, ...] = Field(min_length=1, max_length=1000)
    """Columns of `scores.csv`, in the order of the pickers."""

    @classmethod
    def read(cls, folder: Path) -> "ShownExplanation":
        """Read and check the document; the scores are read when first asked for.

        Raises:
            CohortError: It is missing, or is not as `longvit explain` writes it.
        """
        path = folder / DOCUMENT
        try:
            _require_size(path)
            return cls.model_validate(json.loads(path.read_bytes()) | {"folder": folder})
        except OSError as error:
            raise CohortError(f"there is no explanation here ({error.strerror})", where=path, fix=AGAIN) from None
        except ValidationError as error:
            found = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
            what = f"the explanation is not as it should be: {'; '.join(found[:10])}"
            raise CohortError(what, where=path, fix=AGAIN) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise CohortError(f"the explanation is not JSON ({error})", where=path, fix=AGAIN) from None

    def under(self, names: Pseudonyms) -> "ShownExplanation":
        """Return the explanation with a pseudonym for its slide."""
        return self.model_copy(update={"slide_id": names.of(self.slide_id)})

    @cached_property
    def rc(self) -> npt.NDArray[np.int32]:
        """Row and column of each token (L, 2).

        Raises:
            CohortError: The scores cannot be read, or a token has no place in a grid.
        """
        rc = self._table[["row", "column"]].to_numpy()
        if not ((rc >= 0) & (rc < MOST_ROWS) & (rc % 1 == 0)).all():
            raise CohortError("a token has no place in the grid", where=self.folder / SCORES, fix=AGAIN)
        return rc.astype(np.int32)

    def scores(self, key: str) -> npt.NDArray[np.float32]:
        """Scores of one layer (L,).

        Raises:
            CohortError: The scores cannot be read.
        """
        return self._table[key].to_numpy(np.float32)

    @cached_property
    def _table(self) -> pd.DataFrame:
        path, needed = self.folder / SCORES, ["row", "column", *(layer.key for layer in self.layers)]
        try:
            _require_size(path)
            table = pd.read_csv(path, usecols=needed, dtype=np.float64, nrows=MOST_TOKENS + 1)
        except (OSError, ValueError) as error:  # among them pandas' own, and those of missing columns
            raise CohortError(f"the scores cannot be read ({error})", where=path, fix=AGAIN) from None
        if not 0 < len(table) <= MOST_TOKENS or not (table.abs() <= np.finfo(np.float32).max).all(axis=None):
            what = f"the scores are not those of 1 to {MOST_TOKENS:,} tokens, or are not all finite numbers"
            raise CohortError(what, where=path, fix=AGAIN)
        return table


def _require_size(path: Path) -> None:
    """Raise ValueError unless the path leads to a regular file that is small enough to be read."""
    size = path.stat().st_size
    if not path.is_file() or size > MOST_BYTES[path.name]:
        raise ValueError(f"not a file of at most {MOST_BYTES[path.name]:,} bytes")


def find_explanations(folder: Path) -> dict[str, ShownExplanation]:
    """The explanations of a folder by slide id: its own, or those of the folders in it.

    Raises:
        CohortError: There is none, or one cannot be read.
    """
    folders = (
        [folder] if (folder / DOCUMENT).is_file() else [path.parent for path in sorted(folder.glob(f"*/{DOCUMENT}"))]
    )
    if not folders:
        raise CohortError("there are no explanations here", where=folder, fix="make them: longvit explain --out FOLDER")
    return {found.slide_id: found for found in map(ShownExplanation.read, folders)}
