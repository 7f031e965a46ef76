"""Outputs of models: the check that they are finite, and the scale that makes risks of several models comparable."""

from typing import Annotated, NamedTuple

from jaxtyping import Float
from pydantic import Field, FiniteFloat
from torch import Tensor

from longvit.model.pooling import ROUNDING
from preprocessing.errors import CheckpointError

SCALE_FILE = "risk_scale.json"
"""Name of the scale's file, next to the model."""


class RiskScale(NamedTuple):
    """Mean and deviation of a survival model's risks for its training patients."""

    mean: FiniteFloat
    sd: Annotated[FiniteFloat, Field(ge=0)]

    @property
    def unit(self) -> float:
        """Standard deviations per unit of risk; 0 for a model that gives all patients the same risk, up to rounding."""
        return 0.0 if self.sd <= ROUNDING * max(1.0, abs(self.mean)) else 1 / self.sd

    def standardised(self, risk: float) -> float:
        """Return a risk in standard deviations from the mean; 0 for a model that gives all patients the same risk."""
        return (risk - self.mean) / self.sd if self.unit else 0.0


def require_finite(output_O: Float[Tensor, " O"], slide_id: str) -> None:
    """Refuse an output that is not finite.

    Raises:
        CheckpointError: The output is not finite, so training has diverged in its last step.
    """
    if not output_O.isfinite().all():
        raise CheckpointError(
            "the model gives values that are not finite",
            where=slide_id,
            fix="train again with a lower optimiser.learning_rate; look for NaN in the store's embeddings",
        )
