"""Risks -> survival curves, which a Brier score needs and predictions.csv does not contain."""

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from longvit.cohort.numbers import is_constant
from longvit.evaluation.ipcw import Floats

RIDGE = 1e-3
"""Ridge penalty of the only coefficient; it keeps a fit finite if risks order all events perfectly."""


def standardised(risk: Floats, stratum: npt.NDArray) -> Floats:
    """Return (n,) risks in standard deviations from the mean of their stratum; 0 if a stratum's risks are equal."""
    scaled = np.zeros(len(risk))
    for one in np.unique(stratum):
        rows = stratum == one
        if not is_constant(risk[rows]):
            scaled[rows] = (risk[rows] - risk[rows].mean()) / risk[rows].std()
    return scaled


def cross_fold_curves(
    time: Floats,
    event: npt.NDArray[np.bool_],
    risk: Floats,
    fold: npt.NDArray,
    patient: npt.NDArray,
    times: Floats,
) -> tuple[Floats, Floats] | None:
    """Return survival curves of every patient, fitted to the held-out patients of the other folds.

    For each fold, a Cox regression on the standardised risk is fitted (slope and Breslow's baseline hazard). It is
    fitted to the held-out patients of all other folds, and evaluated at this fold's risks. The reference without a risk
    is Kaplan-Meier of the same other patients. No patient's own row enters the fit of its curve, but the models of the
    other folds were trained on the patient. Risks are standardised within their fold, since the risks of two models
    have no common scale. If the risks of a fold, or of all other folds, are constant, there is no slope: the fold's
    curves are Kaplan-Meier's.

    The other folds are used instead of the validation rows of the same model for three reasons: every predictions.csv
    has them; they have several times as many events; and a model may have been selected on its validation rows. The
    price: a curve evaluates the procedure, not one model, and is only as good as the folds are alike.

    Args:
        time: (n,) time to event or censoring.
        event: (n,) bool.
        risk: (n,) higher means an earlier event.
        fold: (n,) the model that predicted each patient.
        patient: (n,) names; a patient whom several folds hold out is left out of the fits for these folds.
        times: (T,) times of the curves.

    Returns:
        (n, T) shares without event by the model and by Kaplan-Meier. None if the other folds of a fold have no event,
        or no event that a patient outlives, so that the regression has no maximum.
    """
    scaled = standardised(risk, fold)
    model, reference = np.empty((2, len(time), len(times)))
    for one in np.unique(fold):
        rows = fold == one
        others = ~rows & ~np.isin(patient, patient[rows])
        if not event[others].any():
            return None
        reference[rows] = _step(*kaplan_meier_estimator(event[others], time[others])[:2], times, before=1.0)
        if is_constant(scaled[rows]) or is_constant(scaled[others]):
            model[rows] = reference[rows]
            continue
        observed = Surv.from_arrays(event[others], time[others])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                cox = CoxPHSurvivalAnalysis(alpha=RIDGE).fit(scaled[others, None], observed)
        except ConvergenceWarning:
            return None
        hazard = _step(cox.cum_baseline_hazard_.x, cox.cum_baseline_hazard_.y, times, before=0.0)
        model[rows] = np.exp(-hazard * np.exp(scaled[rows, None] * cox.coef_))
    return model, reference


def _step(x: Floats, y: npt.NDArray[np.floating], times: Floats, *, before: float) -> Floats:
    """Return (T,) values of a step function that is `before` until its first step."""
    return np.concatenate([[before], y])[np.searchsorted(x, times, side="right")]
