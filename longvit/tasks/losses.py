"""Training losses for a window of patients, and the risk of a discrete-time model (pure functions)."""

import warnings

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy as cross_entropy
from torch.nn.functional import logsigmoid

with warnings.catch_warnings():  # torchsurv 0.2 compiles itself with torch.jit.script, which torch has deprecated
    warnings.filterwarnings("ignore", ".*torch.jit.script.*", FutureWarning)
    from torchsurv.loss.cox import neg_partial_log_likelihood


def cox_loss(risk_N: Float[Tensor, " N"], time_N: Float[Tensor, " N"], event_N: Bool[Tensor, " N"]) -> Tensor:
    """Return the mean over events of the negative log partial likelihood (Cox 1972), with Efron's ties (Efron 1977).

    Patients censored at a time are still at risk at that time. In torchsurv 0.2 this depends on the order of the
    patients. So torchsurv gets ranks of times, on which alone the likelihood depends. In these ranks, censored patients
    come directly after patients who died at the same time.

    Args:
        risk_N: Log hazards, float32; they may be 80 apart, beyond which exponentials vanish.
        time_N: Time of the event or of the last visit, in the table's unit.
        event_N: True if the event was observed; without an event, or for a single patient, the loss is 0.
    """
    if len(risk_N) == 1 or not event_N.any():
        return risk_N.sum() * 0.0
    ranks_N = 2.0 * torch.unique(time_N, return_inverse=True)[1] + ~event_N
    centred_N = risk_N - risk_N.max().detach()  # a common factor cancels; torchsurv exponentiates without centring
    total = neg_partial_log_likelihood(centred_N, event_N, ranks_N, ties_method="efron", reduction="sum")
    return total / event_N.sum()


def nll_loss(
    logits_NM: Float[Tensor, "N M"], bin_N: Int64[Tensor, " N"], event_N: Bool[Tensor, " N"], alpha: float
) -> Tensor:
    """Return the mean negative log likelihood of a discrete-time model (Zadeh and Schmid 2020).

    The hazard of bin m is h_m = sigmoid(logit), and S_m = (1 - h_1)...(1 - h_m) is the chance to outlive bin m. A
    patient with the event in bin m contributes S_{m-1} h_m; a patient last seen in bin m contributes S_m. The formula
    is MCAT's and LongViT's, but computed in logarithms throughout. The published code clamps the probabilities at 1e-7.

    Args:
        logits_NM: Logit of the hazard in each of M bins.
        bin_N: Bin of the event, or of the last visit.
        event_N: True if the event was observed.
        alpha: The loss is (1 - alpha) times the loss of all patients, plus alpha times the loss of observed events.
    """
    log_survival_NM = logsigmoid(-logits_NM).cumsum(dim=1)
    log_outlived_N, log_before_N, log_hazard_N = (
        row_NM.gather(1, bin_N[:, None]).squeeze(1)
        for row_NM in (log_survival_NM, log_survival_NM - logsigmoid(-logits_NM), logsigmoid(logits_NM))
    )
    observed_N = -(log_before_N + log_hazard_N) * event_N
    censored_N = -log_outlived_N * ~event_N
    return (observed_N + (1 - alpha) * censored_N).mean()


def nll_risk(logits_NM: Float[Tensor, "N M"]) -> Float[Tensor, " N"]:
    """Return minus the sum over bins of the chance to outlive them (MCAT, LongViT): higher for an earlier event."""
    return -logsigmoid(-logits_NM).cumsum(dim=1).exp().sum(dim=1)
