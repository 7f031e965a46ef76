"""An explanation as it lies on disk: `explanation.json`, checked, and `scores.csv`, read when asked for."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from preprocessing.errors import CohortError

DOCUMENT, SCORES = "explanation.json", "scores.csv"
AGAIN = "explain the slide again: longvit explain"


class ShownLayer(BaseModel):
    """One column of `scores.csv`, and how it is drawn."""

    model_config = ConfigDict(frozen=True)

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
    colours: tuple[str, ...]
    """Colours in even steps between the two, `#rrggbb`."""


class ShownExplanation(BaseModel):
    """The explanation of one slide.

    >>> ShownExplanation.read(Path("explanations/slide-1")).layers[0].label  # doctest: +SKIP
    'Share of the logit of LUSC'
    """

    model_config = ConfigDict(frozen=True)

    folder: Path
    """Where it lies."""
    slide_id: str
    """The slide."""
    store: Path
    """Its store, when it was explained."""
    model: str
    """The model that predicted."""
    target: str
    """What is explained."""
    prediction: dict[str, float]
    """Probability of each class, or the log hazard."""
    side_l0: tuple[float, float]
    """Width and height of a token, level-0 pixels."""
    layers: tuple[ShownLayer, ...]
    """Columns of `scores.csv`, in the order of the pickers."""

    @classmethod
    def read(cls, folder: Path) -> "ShownExplanation":
        """Read and check the document; the scores are read when first asked for.

        Raises:
            CohortError: It is missing, or is not as `longvit explain` writes it.
        """
        path = folder / DOCUMENT
        try:
            return cls.model_validate({"folder": folder} | json.loads(path.read_bytes()))
        except OSError as error:
            raise CohortError(f"there is no explanation here ({error.strerror})", where=path, fix=AGAIN) from None
        except ValidationError as error:
            places = ", ".join(sorted({".".join(map(str, problem["loc"])) for problem in error.errors()}))
            raise CohortError(f"the explanation is not as it should be: {places}", where=path, fix=AGAIN) from None
        except (ValueError, TypeError) as error:
            raise CohortError(f"the explanation is not JSON ({error})", where=path, fix=AGAIN) from None

    @cached_property
    def rc(self) -> npt.NDArray[np.int32]:
        """Row and column of each token (L, 2)."""
        return self._table[["row", "column"]].to_numpy(np.int32)

    def scores(self, key: str) -> npt.NDArray[np.float32]:
        """Scores of one layer (L,)."""
        return self._table[key].to_numpy(np.float32)

    @cached_property
    def _table(self) -> pd.DataFrame:
        path, needed = self.folder / SCORES, ["row", "column", *(layer.key for layer in self.layers)]
        try:
            return pd.read_csv(path, usecols=needed)
        except (
            OSError,
            ValueError,
        ) as error:  # pandas' ParserError and what it says of missing columns are ValueErrors
            raise CohortError(f"the scores cannot be read ({error})", where=path, fix=AGAIN) from None


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
