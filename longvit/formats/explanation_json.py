"""Schema of explanation.json, the explanation of one slide, and of scores.csv next to it, the scores of its tokens.

scores.csv has one row per token: `x_l0, y_l0` (top left corner, level-0 pixels), `row, column` (place in the grid of
tokens), and a column of scores for each layer of explanation.json.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from preprocessing.errors import CohortError
from preprocessing.jobs.files import is_plain_name

EXPLANATION, SCORES = "explanation.json", "scores.csv"
AGAIN = "explain the slide again: longvit explain"
MAX_BYTES = {EXPLANATION: 4_000_000, SCORES: 1_000_000_000}
"""Largest size of each file, bytes; larger files are refused before they are read."""
MAX_TOKENS = 4_000_000
"""Largest number of rows of scores.csv: four slides of a million tokens."""
MAX_ROWS = 1_000_000
"""Largest number of rows and columns of the token grid."""
_CHECKED = ConfigDict(frozen=True, allow_inf_nan=False, str_max_length=1000)


def _plain(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError("is not a plain name")
    return name


class MapLayer(BaseModel):
    """Column of scores.csv, and its colours."""

    model_config = _CHECKED

    key: str
    """Name of the column."""
    method: str
    """Method that computed the scores."""
    layer: int | None = None
    """Layer of the encoder, counted from 1; None if all layers contribute."""
    head: int | None = None
    """Attention head, counted from 0; None if all heads contribute."""
    label: str
    """Name in the viewer's picker."""
    meaning: str
    """Quantity that the scale measures."""
    signed: bool
    """True if 0 divides evidence for the target from evidence against it."""
    vmin: float
    """Score of the first colour."""
    vmax: float
    """Score of the last colour."""
    colours: tuple[Annotated[str, Field(pattern="^#[0-9a-f]{6}$")], ...] = Field(min_length=2, max_length=256)
    """Colours in even steps from `vmin` to `vmax`, `#rrggbb`."""

    @model_validator(mode="after")
    def _rises(self) -> "MapLayer":
        if self.vmin >= self.vmax:
            raise ValueError("vmin is not below vmax")
        return self


class ExplanationFile(BaseModel):
    """Content of explanation.json."""

    model_config = _CHECKED

    slide_id: Annotated[str, AfterValidator(_plain)]
    """Id of the slide."""
    store: str
    """Store of the slide, as a path from the folder of the explanation; readers use the path's folder alone."""
    model: str
    """File of the model, as such a path."""
    target: str
    """Output that is explained: the name of a class, or `log hazard`."""
    prediction: dict[str, float] = Field(min_length=1, max_length=1000)
    """Prediction of the slide, as in predictions.csv."""
    size_l0: tuple[int, int] | None = None
    """Width and height of the slide, level-0 pixels."""
    side_l0: tuple[PositiveFloat, PositiveFloat]
    """Width and height of a token, level-0 pixels."""
    mpp: float | None = None
    """Micrometres per level-0 pixel."""
    layers: tuple[MapLayer, ...] = Field(min_length=1, max_length=1000)
    """Columns of scores.csv, in the order of the pickers."""


class ExplanationFolder(ExplanationFile):
    """Explanation of one slide on disk; the scores are read when they are first used.

    >>> ExplanationFolder.read(Path("explanations/slide-1")).layers[0].label  # doctest: +SKIP
    'Share of the logit of LUSC'
    """

    folder: Path
    """Folder of both files."""

    @classmethod
    def read(cls, folder: Path) -> "ExplanationFolder":
        """Read and check explanation.json.

        Raises:
            CohortError: The file is missing, or is not as `longvit explain` writes it.
        """
        path = folder / EXPLANATION
        try:
            _require_size(path)
            return cls.model_validate(json.loads(path.read_bytes()) | {"folder": folder})
        except OSError as error:
            raise CohortError(f"there is no explanation here ({error.strerror})", where=path, fix=AGAIN) from None
        except ValidationError as error:
            found = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
            what = f"the explanation is not valid: {'; '.join(found[:10])}"
            raise CohortError(what, where=path, fix=AGAIN) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise CohortError(f"the explanation is not JSON ({error})", where=path, fix=AGAIN) from None

    @cached_property
    def rc(self) -> npt.NDArray[np.int32]:
        """Row and column of each token (L, 2).

        Raises:
            CohortError: The scores cannot be read, or a token has no place in a grid.
        """
        rc = self._table[["row", "column"]].to_numpy()
        if not ((rc >= 0) & (rc < MAX_ROWS) & (rc % 1 == 0)).all():
            raise CohortError("a token has no place in the grid", where=self.folder / SCORES, fix=AGAIN)
        return rc.astype(np.int32)

    def scores(self, key: str) -> npt.NDArray[np.float32]:
        """Return the scores of one layer (L,).

        Raises:
            CohortError: The scores cannot be read.
        """
        return self._table[key].to_numpy(np.float32)

    @cached_property
    def _table(self) -> pd.DataFrame:
        path, needed = self.folder / SCORES, ["row", "column", *(layer.key for layer in self.layers)]
        try:
            _require_size(path)
            table = pd.read_csv(path, usecols=needed, dtype=np.float64, nrows=MAX_TOKENS + 1)
        except (OSError, ValueError) as error:  # includes pandas' own errors, and errors about missing columns
            raise CohortError(f"the scores cannot be read ({error})", where=path, fix=AGAIN) from None
        if not 0 < len(table) <= MAX_TOKENS or not (table.abs() <= np.finfo(np.float32).max).all(axis=None):
            what = f"the scores are not finite numbers of 1 to {MAX_TOKENS:,} tokens"
            raise CohortError(what, where=path, fix=AGAIN)
        return table


def write_explanation(
    folder: Path, explanation: ExplanationFile, places: dict[str, npt.NDArray], scores: dict[str, npt.NDArray]
) -> None:
    """Write scores.csv, and then explanation.json, whose presence marks a finished explanation.

    Args:
        folder: Folder of both files.
        explanation: Content of explanation.json.
        places: `x_l0, y_l0, row, column` of each token, (L,) each.
        scores: Scores by the key of their layer, (L,) each.
    """
    pd.DataFrame(places | scores).to_csv(folder / SCORES, index=False, float_format="%.7g")
    (folder / EXPLANATION).write_text(json.dumps(explanation.model_dump(), indent=2) + "\n", encoding="utf-8")


def is_explanation(folder: Path) -> bool:
    """Return whether a folder contains a finished explanation."""
    return (folder / EXPLANATION).is_file()


def find_explanations(folder: Path) -> dict[str, ExplanationFolder]:
    """Read explanations by slide id: the explanation in a folder, or the explanations in its subfolders.

    Raises:
        CohortError: There are no explanations, or an explanation cannot be read.
    """
    folders = [folder] if is_explanation(folder) else [path.parent for path in sorted(folder.glob(f"*/{EXPLANATION}"))]
    if not folders:
        raise CohortError("there are no explanations here", where=folder, fix="make them: longvit explain --out FOLDER")
    return {found.slide_id: found for found in map(ExplanationFolder.read, folders)}


def _require_size(path: Path) -> None:
    """Raise ValueError unless the path is a regular file of readable size."""
    size = path.stat().st_size
    if not path.is_file() or size > MAX_BYTES[path.name]:
        raise ValueError(f"not a file of at most {MAX_BYTES[path.name]:,} bytes")
