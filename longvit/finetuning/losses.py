"""What training makes small: losses of a window of patients, as pure functions of their outputs."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def cox_loss(risk_N: Float[Tensor, " N"], time_N: Float[Tensor, " N"], event_N: Bool[Tensor, " N"]) -> Tensor:
    """Mean over events of the negative log partial likelihood (Cox 1972), with Efron's ties (Efron 1977).

    Who is censored at a time is still at risk at that time. torchsurv 0.2 leaves such patients out by chance of
    sorting, fails for one patient, and overflows beyond a log hazard of 88. 0 where there is no event.

    Args:
        risk_N: Log hazards.
        time_N: Times of the event, or of the last visit.
        event_N: Whether the event was observed.
    """
    if not event_N.any():
        return risk_N.sum() * 0.0
    risk_E, time_E = risk_N[event_N], time_N[event_N]
    nobody = risk_N.new_tensor(-torch.inf)
    at_risk_E = torch.where(time_N >= time_E[:, None], risk_N, nobody).logsumexp(dim=1)
    tied_EE = time_E[:, None] == time_E
    tied_E = torch.where(tied_EE, risk_E, nobody).logsumexp(dim=1)
    gone_E = tied_EE.tril(-1).sum(dim=1) / tied_EE.sum(dim=1)  # of those who die together, the share that died before
    return (at_risk_E + torch.log1p(-gone_E * (tied_E - at_risk_E).exp()) - risk_E).mean()
