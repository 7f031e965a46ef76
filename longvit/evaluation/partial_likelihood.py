"""Cox's partial likelihood with Efron's ties: its maximum, Wald's intervals, and the test of proportional hazards.

The score test of R's `cox.zph` (survival 3) is computed exactly. lifelines approximates it by correlating residuals,
and its result depends on the order of patients whose events are tied.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from longvit.evaluation.ipcw import Floats

MOST_STEPS = 40
SMALL_STEP = 1e-9
"""Largest last step of a coefficient per standard deviation; Newton's next step would be its square."""
MAX_CONDITION = 1e10


@dataclass(frozen=True)
class CoxFit:
    """Result of a Cox regression on p covariates.

    Attributes:
        coefficient: (p,) log hazard ratio per unit of the covariate.
        error: (p,) standard error.
        p: (p,) p-value of Wald's test.
        ph_p: (p,) p-value of the score test for a coefficient that is linear in the rank of time.
    """

    coefficient: Floats
    error: Floats
    p: Floats
    ph_p: Floats


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def fit_cox(time: Floats, event: npt.NDArray[np.bool_], design: Floats) -> CoxFit | None:
    """Maximise the partial likelihood by Newton's method; return None if it has no maximum.

    Args:
        time: (n,) time to event or censoring.
        event: (n,) bool.
        design: (n, p) covariates; a constant covariate is not allowed.
    """
    spread = design.std(axis=0)
    scaled = (design - design.mean(axis=0)) / spread
    beta = np.zeros(design.shape[1])
    for _ in range(MOST_STEPS):
        _, score, information = _at_deaths(time, event, scaled, beta)
        total = information.sum(axis=0)
        if not np.isfinite(total).all() or not np.linalg.cond(total) < MAX_CONDITION:
            return None
        step = np.linalg.solve(total, score.sum(axis=0))
        beta = beta + step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < SMALL_STEP:
            break
    else:
        return None
    when, score, information = _at_deaths(time, event, scaled, beta)
    error = np.sqrt(np.diag(np.linalg.inv(information.sum(axis=0))))
    ph_p = _proportional_p(pd.Series(time).rank().to_numpy()[when], score, information)
    return CoxFit(beta / spread, error / spread, two_sided(beta / error), ph_p)


def two_sided(z: Floats) -> Floats:
    """Return (p,) two-sided p-values of standard normal deviates."""
    return np.array([math.erfc(abs(one) / math.sqrt(2)) for one in z])


def _at_deaths(
    time: Floats, event: npt.NDArray[np.bool_], design: Floats, beta: Floats
) -> tuple[npt.NDArray[np.int_], Floats, Floats]:
    """Return, per distinct time of death, a row that died then, the (D, p) score and the (D, p, p) information."""
    order = np.argsort(-time, kind="stable")
    time, event, design = time[order], event[order], design[order]
    hazard = np.exp(design @ beta)
    moments = [hazard, hazard[:, None] * design, hazard[:, None, None] * design[:, :, None] * design[:, None, :]]
    at_risk = [moment.cumsum(axis=0) for moment in moments]
    deaths = np.unique(time[event])
    starts, ends = np.searchsorted(-time, -deaths), np.searchsorted(-time, -deaths, side="right")
    score, information = np.zeros((len(deaths), len(beta))), np.zeros((len(deaths), len(beta), len(beta)))
    when = np.empty(len(deaths), dtype=int)
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        died = start + np.flatnonzero(event[start:end])
        share = np.arange(len(died)) / len(died)  # Efron: the tied patients leave one after the other
        s0, s1, s2 = (
            total[end - 1] - np.multiply.outer(share, moment[died].sum(axis=0))
            for total, moment in zip(at_risk, moments, strict=True)
        )
        mean = s1 / s0[:, None]
        when[k] = order[died[0]]
        score[k] = design[died].sum(axis=0) - mean.sum(axis=0)
        information[k] = (s2 / s0[:, None, None]).sum(axis=0) - mean.T @ mean
    return when, score, information


def _proportional_p(rank: npt.NDArray[np.floating], score: Floats, information: Floats) -> Floats:
    """Return (p,) p-values of the score test that a coefficient does not change with the (D,) ranks of time.

    Each of the p covariates is also entered multiplied by the rank; the score of this product is 0 if the hazards are
    proportional.
    """
    g = rank - rank.mean()
    plain, drift = information.sum(axis=0), np.einsum("d,dij->ij", g, information)
    change = np.einsum("d,dij->ij", g**2, information)
    tilt = g @ score
    variance = np.diag(change) - np.einsum("ij,ij->j", drift, np.linalg.solve(plain, drift))
    return two_sided(tilt / np.sqrt(np.where(variance > SMALL_STEP, variance, np.nan)))
