"""Explanation of one slide in memory: scores of its tokens, and the prediction that they explain."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from pydantic import ValidationError

from longvit.config import Method
from longvit.explanation.colour import ColourScale
from longvit.formats.explanation_json import ExplanationFile, MapLayer, write_explanation
from preprocessing.errors import CheckpointError, few
from preprocessing.frames import l0_from_rc


@dataclass(frozen=True)
class ScoreMap:
    """Scores of all tokens by one method."""

    key: str
    """Name of the map's column and files: the method, followed by `_layer_02` for a single layer."""
    method: Method
    """Method that computed the scores."""
    label: str
    """Name in the viewer's picker."""
    meaning: str
    """Quantity that the scale measures."""
    signed: bool
    """True if 0 divides evidence for the target from evidence against it."""
    scores: Float[np.ndarray, " L"]
    """Scores in the order of the slide's tokens."""
    layer: int | None = None
    """Layer of the encoder, counted from 1; None if all layers contribute."""
    head: int | None = None
    """Attention head, counted from 0; None if all heads contribute."""
    sequence: Float[np.ndarray, " M"] | None = None
    """Scores of all slides that were read as one sequence, which have one scale; None for the slide alone."""

    @property
    def scale(self) -> ColourScale:
        """Colours of the scores."""
        return ColourScale.of(self.scores if self.sequence is None else self.sequence, self.signed)


@dataclass(frozen=True)
class Origin:
    """Models that a prediction is of, and slides that they read together."""

    folds: tuple[int, ...] = ()
    """Folds of the models; empty for a model that is not in the folder of a run."""
    seen_by: tuple[int, ...] = ()
    """Folds among `folds` whose model was trained or selected on the patient."""
    patient: str | None = None
    """Patient of the slides; None for a slide that was read by itself."""
    slides: tuple[str, ...] = ()
    """Slides that were read as one sequence, in order; empty for a slide that was read by itself."""

    def __str__(self) -> str:
        parts = []
        if len(self.folds) > 1:
            parts.append(f"mean of {len(self.folds)} folds")
        if self.slides:
            parts.append(f"patient {self.patient}, {len(self.slides)} slides read as one")
        if self.seen_by:
            folds = f": folds {few([str(fold) for fold in self.seen_by])}" if len(self.folds) > 1 else ""
            parts.append(f"trained or selected on the patient{folds}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Explanation:
    """Scores of a slide's tokens, and the prediction that they explain."""

    slide_id: str
    """Id of the slide."""
    store: str
    """Store of the slide, as a path from the folder of the explanation (`shareable_path`)."""
    model: str
    """File of the model, as such a path."""
    target: str
    """Output that is explained: the name of a class, or `log hazard`."""
    prediction: dict[str, float]
    """`p_<class>` for each class, or `risk`, as in predictions.csv."""
    size_l0: tuple[int, int]
    """Width and height of the slide, level-0 pixels."""
    side_l0: tuple[float, float]
    """Width and height of a token, level-0 pixels."""
    mpp: float
    """Micrometres per level-0 pixel."""
    rc: Int[np.ndarray, "L 2"]
    """Row and column of each token in the token grid, which begins at the corner of the slide."""
    maps: tuple[ScoreMap, ...]
    """Score maps."""
    origin: Origin = Origin()
    """Models, and slides that were read together."""
    piece: Int[np.ndarray, " L"] | None = None
    """Piece of tissue of each token, -1 for none; None if the store has no pieces."""

    @property
    def title(self) -> str:
        """Slide id and prediction, and a second line about models and slides if there is more than one."""
        if "risk" in self.prediction:
            number = f"risk {self.prediction['risk']:+.2f}"
        else:
            number = f"P({self.target}) = {self.prediction[f'p_{self.target}']:.2f}"
        return "\n".join(filter(None, (f"{self.slide_id}: {number}", str(self.origin))))

    def save(self, folder: Path) -> None:
        """Write `scores.csv` and `explanation.json`.

        Raises:
            CheckpointError: The prediction or the scores are not finite.
        """
        xy_l0 = l0_from_rc(self.rc, self.side_l0)
        places = {"x_l0": xy_l0[:, 0], "y_l0": xy_l0[:, 1], "row": self.rc[:, 0], "column": self.rc[:, 1]}
        if self.piece is not None:
            places["piece"] = self.piece
        scores = {one.key: one.scores.astype(np.float64) for one in self.maps}
        write_explanation(folder, self._file(), places, scores)

    def _file(self) -> ExplanationFile:
        names = ("slide_id", "store", "model", "target", "prediction", "size_l0", "side_l0", "mpp")
        try:
            layers = tuple(map(_layer, self.maps))
            return ExplanationFile(
                **{name: getattr(self, name) for name in names}, **asdict(self.origin), layers=layers
            )
        except ValidationError as error:
            first = error.errors()[0]
            what = f"the explanation cannot be written: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            fix = "train the model again with a lower optimiser.learning_rate; look for NaN in the store's embeddings"
            raise CheckpointError(what, where=self.model, fix=fix) from error


def _layer(one: ScoreMap) -> MapLayer:
    scale = one.scale
    names = ("key", "method", "layer", "head", "label", "meaning", "signed")
    colours = {"vmin": scale.vmin, "vmax": scale.vmax, "colours": tuple(scale.stops())}
    return MapLayer(**{name: getattr(one, name) for name in names}, **colours)
