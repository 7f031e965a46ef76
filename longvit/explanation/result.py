"""What an explanation is, and the two files that hold it: `explanation.json` and `scores.csv`."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from longvit.config import Method
from longvit.explanation.colour import Scale
from preprocessing.frames import l0_from_rc

EXPLANATION = "explanation.json"
"""File that every folder of an explanation has."""


@dataclass(frozen=True)
class ScoreMap:
    """One score for every token."""

    key: str
    """Name of its column and of its files: the method, and where it is a layer's, `_layer_02`."""
    method: Method
    """How it was computed."""
    label: str
    """What a picker calls it."""
    meaning: str
    """What its scale measures."""
    signed: bool
    """Whether 0 divides what speaks for from what speaks against."""
    scores: Float[np.ndarray, " L"]
    """The scores, in the order of the slide's tokens."""
    layer: int | None = None
    """Layer of the encoder, the first being 1; none where all have a part."""
    head: int | None = None
    """Attention head, the first being 0; none where all have a part."""

    @property
    def scale(self) -> Scale:
        """Its colours."""
        return Scale.of(self.scores, self.signed)


@dataclass(frozen=True)
class Explanation:
    """Scores of a slide's tokens, and what they explain."""

    slide_id: str
    store: str
    """The slide's store, a path from the folder of the explanation (`shareable_path`)."""
    model: str
    """The model that predicted, such a path, too."""
    target: str
    """What is explained: the name of a class, or `risk`."""
    prediction: dict[str, float]
    """`p_<class>` for each class, or `risk`, as in predictions.csv."""
    size_l0: tuple[int, int]
    """Width and height of the slide, level-0 pixels."""
    side_l0: tuple[float, float]
    """Width and height of a token, level-0 pixels."""
    mpp: float
    """Micrometres per level-0 pixel."""
    rc: Int[np.ndarray, "L 2"]
    """Row and column of each token in the slide's grid of tokens, whose first corner is that of the slide."""
    maps: tuple[ScoreMap, ...]
    """The scores."""

    @property
    def title(self) -> str:
        """The slide and its prediction, in one line."""
        if "risk" in self.prediction:
            return f"{self.slide_id}: risk {self.prediction['risk']:+.2f}"
        return f"{self.slide_id}: P({self.target}) = {self.prediction[f'p_{self.target}']:.2f}"

    def save(self, folder: Path) -> None:
        """Write `scores.csv`, a row per token, and `explanation.json`, which says what its columns are."""
        xy_l0 = l0_from_rc(self.rc, self.side_l0)
        places = {"x_l0": xy_l0[:, 0], "y_l0": xy_l0[:, 1], "row": self.rc[:, 0], "column": self.rc[:, 1]}
        scores = {one.key: one.scores.astype(np.float64) for one in self.maps}
        pd.DataFrame(places | scores).to_csv(folder / "scores.csv", index=False, float_format="%.7g")
        (folder / EXPLANATION).write_text(json.dumps(self.document(), indent=2) + "\n", encoding="utf-8")

    def document(self) -> dict[str, object]:
        """What `explanation.json` holds."""
        return {
            "slide_id": self.slide_id,
            "store": self.store,
            "model": self.model,
            "target": self.target,
            "prediction": self.prediction,
            "size_l0": list(self.size_l0),
            "side_l0": list(self.side_l0),
            "mpp": self.mpp,
            "layers": [_layer(one) for one in self.maps],
        }


def _layer(one: ScoreMap) -> dict[str, object]:
    scale = one.scale
    about = {name: getattr(one, name) for name in ("key", "method", "layer", "head", "label", "meaning", "signed")}
    return about | {"vmin": scale.vmin, "vmax": scale.vmax, "colours": scale.stops()}
