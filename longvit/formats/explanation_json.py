"""Schema of explanation.json, the explanation of one slide, and of scores.csv next to it, the scores of its tokens.

scores.csv has one row per token: `x_l0, y_l0` (top left corner, level-0 pixels), `row, column` (place in the grid of
tokens), and a column of scores for each layer of explanation.json.
"""

import csv
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from preprocessing.errors import CohortError, few, short
from preprocessing.jobs.files import is_plain_name

EXPLANATION, SCORES = "explanation.json", "scores.csv"
AGAIN = "explain the slide again: longvit explain"
MAX_BYTES = {EXPLANATION: 4_000_000, SCORES: 1_000_000_000}
"""Largest size of each file, bytes; larger files are refused before they are read."""
MAX_TOKENS = 4_000_000
"""Largest number of rows of scores.csv: four slides of a million tokens."""
MAX_ROWS = 1_000_000
"""Largest number of rows and columns of the token grid."""
MAX_CELLS = 1 << 28
"""Largest number of cells of the token grid, the largest picture of a browser."""
MAX_COLUMNS = 2000
"""Largest number of columns of scores.csv."""
MAX_LINE = 1 << 22
"""Largest length of a line of scores.csv, bytes: a parser needs many times the memory of a line."""
Side = Annotated[int, Field(gt=0, lt=1 << 31)]
"""Width or height of a slide, level-0 pixels."""
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
    colours: Annotated[tuple[Annotated[str, Field(pattern="^#[0-9a-f]{6}$")], ...], FailFast()] = Field(
        min_length=2, max_length=256
    )
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
    """Prediction of the slide or its patient, as in predictions.csv."""
    folds: Annotated[tuple[int, ...], FailFast()] = Field(default=(), max_length=1000)
    """Folds whose models are averaged; empty for a single model."""
    seen_by: Annotated[tuple[int, ...], FailFast()] = Field(default=(), max_length=1000)
    """Folds among them whose model was trained or selected on the patient."""
    patient: str | None = None
    """Patient of several slides that were read as one sequence."""
    slides: Annotated[tuple[str, ...], FailFast()] = Field(default=(), max_length=1000)
    """Slides that were read as one sequence; empty for a slide that was read by itself."""
    size_l0: tuple[Side, Side] | None = None
    """Width and height of the slide, level-0 pixels."""
    side_l0: tuple[PositiveFloat, PositiveFloat]
    """Width and height of a token, level-0 pixels."""
    mpp: PositiveFloat | None = None
    """Micrometres per level-0 pixel."""
    layers: Annotated[tuple[MapLayer, ...], FailFast()] = Field(min_length=1, max_length=1000)
    """Columns of scores.csv, in the order of the pickers."""

    @model_validator(mode="after")
    def _has_each_layer_once(self) -> "ExplanationFile":
        if len({layer.key for layer in self.layers}) < len(self.layers):
            raise ValueError("two layers have the same key")
        return self


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
            document = json.loads(path.read_bytes(), object_pairs_hook=_distinct)
            return cls.model_validate(document | {"folder": folder})
        except OSError as error:
            raise CohortError(f"there is no explanation here ({error.strerror})", where=path, fix=AGAIN) from None
        except ValidationError as error:
            found = [
                ": ".join(filter(None, (".".join(map(str, problem["loc"])), problem["msg"])))
                for problem in error.errors(include_input=False, include_url=False, include_context=False)
            ]
            what = f"the explanation is not valid: {few(found, 10, '; ')}"
            raise CohortError(what, where=path, fix=AGAIN) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise CohortError(f"the explanation is not JSON ({short(str(error))})", where=path, fix=AGAIN) from None

    @cached_property
    def rc(self) -> npt.NDArray[np.int32]:
        """Row and column of each token (L, 2).

        Raises:
            CohortError: The scores cannot be read, or a token has no place in a grid.
        """
        rc = self._table[["row", "column"]].to_numpy()
        if not ((rc >= 0) & (rc < MAX_ROWS) & (rc % 1 == 0)).all():
            raise CohortError("a token has no place in the grid", where=self.folder / SCORES, fix=AGAIN)
        if (rc.max(axis=0) + 1).prod() > MAX_CELLS:
            what = f"the grid of tokens has more than {MAX_CELLS:,} places"
            raise CohortError(what, where=self.folder / SCORES, fix=AGAIN)
        return rc.astype(np.int32)

    def scores(self, key: str) -> npt.NDArray[np.float32]:
        """Return the scores of one layer (L,).

        Raises:
            CohortError: The scores cannot be read.
        """
        return self._table[key].to_numpy(np.float32)

    @cached_property
    def _table(self) -> pd.DataFrame:
        path, needed = self.folder / SCORES, {"row", "column", *(layer.key for layer in self.layers)}
        try:
            _require_size(path)
            names = _header(path, needed)
            table = pd.read_csv(
                path,
                names=names,
                header=0,
                index_col=False,
                dtype=np.float64,
                nrows=MAX_TOKENS + 1,
                quoting=csv.QUOTE_NONE,
            )[sorted(needed)]
        except (OSError, ValueError) as error:  # includes pandas' own errors
            raise CohortError(f"the scores cannot be read ({short(str(error))})", where=path, fix=AGAIN) from None
        finite = all((column.abs() <= np.finfo(np.float32).max).all() for _, column in table.items())
        if not 0 < len(table) <= MAX_TOKENS or not finite:
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
    pd.DataFrame(places | scores).to_csv(folder / SCORES, index=False, float_format="%.7g", lineterminator="\n")
    text = json.dumps(explanation.model_dump(), indent=2) + "\n"
    (folder / EXPLANATION).write_text(text, encoding="utf-8", newline="\n")


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
    found: dict[str, ExplanationFolder] = {}
    for one in map(ExplanationFolder.read, folders):
        if one.slide_id in found:
            what = f"two explanations are of {one.slide_id}, the other is in {found[one.slide_id].folder.name}"
            raise CohortError(what, where=one.folder, fix="leave one of them in the folder")
        found[one.slide_id] = one
    return found


def _header(path: Path, needed: set[str]) -> list[str]:
    """Return the names of the columns of scores.csv.

    Raises:
        ValueError: A column is missing or appears twice, there are too many columns, the first row has another number
            of values (pandas would shift them), or a line is too long.
    """
    with path.open("rb") as file:
        names, first = (file.readline(MAX_LINE).decode("utf-8-sig").strip("\r\n").split(",") for _ in range(2))
        while block := file.read(MAX_LINE):
            if len(block) == MAX_LINE and b"\n" not in block:
                raise ValueError(f"a line has more than {MAX_LINE:,} bytes")
    if missing := sorted(needed - set(names)):
        raise ValueError(f"it lacks the columns {few(missing)}")
    if len(names) > MAX_COLUMNS or len(set(names)) < len(names):
        raise ValueError(f"a column appears twice, or there are more than {MAX_COLUMNS:,}")
    if len(first) != len(names):
        raise ValueError(f"the first row has {len(first)} values, and the header {len(names)} names")
    return names


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return names and values of a JSON object.

    Raises:
        ValueError: A name appears twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name appears twice")
    return values


def _require_size(path: Path) -> None:
    """Raise ValueError unless the path is a regular file of readable size."""
    size = path.stat().st_size
    if not path.is_file() or size > MAX_BYTES[path.name]:
        raise ValueError(f"not a file of at most {MAX_BYTES[path.name]:,} bytes")
