"""Scale of a survival model's risks, which makes the risks of several models comparable."""

from typing import Annotated, NamedTuple

from pydantic import Field, FiniteFloat

from longvit.model.pooling import ROUNDING

SCALE_FILE = "risk_scale.json"
"""Name of the scale's file, next to the model."""


class RiskScale(NamedTuple):
    """Mean and deviation of a survival model's risks for its training patients."""

    mean: FiniteFloat
    sd: Annotated[FiniteFloat, Field(ge=0)]

    def standardised(self, risk: float) -> float:
        """Return a risk in standard deviations from the mean; 0 for a model that gives all patients the same risk."""
        constant = self.sd <= ROUNDING * max(1.0, abs(self.mean))
        return 0.0 if constant else (risk - self.mean) / self.sd
