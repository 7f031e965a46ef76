"""Outputs of a model with a head as numbers of a patient: probabilities, or a risk and the scale that it has."""

from typing import Annotated, NamedTuple

from jaxtyping import Float
from pydantic import Field, FiniteFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from longvit.config import NllTask, Task
from longvit.model.pooling import ROUNDING

SCALE_FILE = "risk_scale.json"


class RiskScale(NamedTuple):
    """Mean and deviation of the risks that one survival model gives its training patients."""

    mean: FiniteFloat
    sd: Annotated[FiniteFloat, Field(ge=0)]

    def standardised(self, risk: float) -> float:
        """Return a risk in standard deviations from the mean; 0 for a model that gives all patients the same risk."""
        constant = self.sd <= ROUNDING * max(1.0, abs(self.mean))
        return 0.0 if constant else (risk - self.mean) / self.sd


def columns(output_O: Float[Tensor, " O"], task: Task, classes: tuple[str, ...]) -> dict[str, float]:
    """A model's output as columns of predictions.csv: `p_<class>` each, or `risk` (higher = earlier event)."""
    if classes:
        return {f"p_{name}": p.item() for name, p in zip(classes, output_O.double().softmax(0), strict=True)}
    return {"risk": nll_risk(output_O[None]).item() if isinstance(task, NllTask) else output_O.item()}


def nll_risk(logits_NM: Float[Tensor, "N M"]) -> Float[Tensor, " N"]:
    """Minus the sum over bins of the chance to outlive them, as MCAT and LongViT publish it: higher dies earlier."""
    return -logsigmoid(-logits_NM).cumsum(dim=1).exp().sum(dim=1)
