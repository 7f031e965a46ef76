"""What training makes small: losses of a window of patients, as pure functions of their outputs."""

import warnings

import torch
from jaxtyping import Bool, Float
from torch import Tensor

with warnings.catch_warnings():  # torchsurv 0.2 compiles itself with torch.jit.script, which torch calls deprecated
    warnings.filterwarnings("ignore", ".*torch.jit.script.*", FutureWarning)
    from torchsurv.loss.cox import neg_partial_log_likelihood


def cox_loss(risk_N: Float[Tensor, " N"], time_N: Float[Tensor, " N"], event_N: Bool[Tensor, " N"]) -> Tensor:
    """Mean over events of the negative log partial likelihood (Cox 1972), with Efron's ties (Efron 1977).

    Who is censored at a time is still at risk at that time. torchsurv 0.2 lets the order of the patients decide that,
    so it gets ranks of times, all that the likelihood depends on, with the censored just after who died with them.

    Args:
        risk_N: Log hazards, float32; they may lie 80 apart, beyond which exponentials vanish.
        time_N: Times of the event, or of the last visit.
        event_N: Whether the event was observed; 0 is the loss where none was, and of one patient alone.
    """
    if len(risk_N) == 1 or not event_N.any():
        return risk_N.sum() * 0.0
    ranks_N = 2.0 * torch.unique(time_N, return_inverse=True)[1] + ~event_N
    centred_N = risk_N - risk_N.max().detach()  # a common factor cancels; torchsurv takes plain exponentials
    total = neg_partial_log_likelihood(centred_N, event_N, ranks_N, ties_method="efron", reduction="sum")
    return total / event_N.sum()
