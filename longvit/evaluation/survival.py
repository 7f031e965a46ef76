"""Metrics of a survival model, from times, events and risks. Pure functions; scikit-survival and lifelines compute."""

import numpy as np
import numpy.typing as npt
from lifelines.statistics import logrank_test
from sksurv.exceptions import NoComparablePairException
from sksurv.metrics import concordance_index_censored

from longvit.cohort.numbers import ROUNDING, TIED_TOL, is_constant, tolerance
from longvit.evaluation.curves import cross_fold_curves
from longvit.evaluation.ipcw import (
    CensoringCurve,
    SurvivalRows,
    brier,
    censoring,
    dynamic_auc,
    evaluation_times,
    mean_auc,
    over_time,
    uno_c_index,
)
from preprocessing.errors import CohortError

SURVIVAL_METRICS = ("c_index", "uno_c_index", "td_auc", "ibs", "ibs_km", "logrank_p")
"""Names of the metrics, the headline first."""


def survival_metrics(
    time: npt.ArrayLike,
    event: npt.ArrayLike,
    risk: npt.ArrayLike,
    *,
    stratum: npt.ArrayLike | None = None,
    patient: npt.ArrayLike | None = None,
) -> dict[str, float | int | None]:
    """Return how well risks predict the events of n patients.

    `c_index` is Harrell's (JAMA 1982): the share of comparable pairs in which the patient of higher risk has the
    earlier event. With `stratum` it is the stratified index: concordant over comparable pairs, both summed over strata,
    so that two patients are compared only within one stratum. Pooling over cross-validation folds needs this: a Cox
    risk is determined up to a constant, which differs between the models of two folds.

    `uno_c_index` (inverse probability of censoring weights) and `td_auc` (mean cumulative/dynamic AUC over time) are
    stratified in the same way. `ibs` is the integrated Brier score of survival curves that are fitted on the other
    strata (`longvit.evaluation.curves`); `ibs_km` is that of Kaplan-Meier on the same strata. For both, lower is
    better. Censoring is estimated from all n patients, and times end where nine in ten patients have left observation.
    `logrank_p` compares patients of high and of low risk, each counted once (see `high_risk`).

    Example:
        >>> survival_metrics(time=[2, 5, 7, 9], event=[1, 1, 0, 1], risk=[0.9, 0.1, 0.4, 0.2])["c_index"]
        0.6

    Args:
        time: (n,) time to event or censoring.
        event: (n,) 1 observed, 0 censored.
        risk: (n,) higher means an earlier event.
        stratum: (n,); pairs are compared only within a stratum, for instance the fold.
        patient: (n,) names, if one patient can be in several strata.

    Returns:
        The metrics of `SURVIVAL_METRICS`, and `n` and `n_events`. A metric that is undefined is None: Brier scores of
        one stratum, a log-rank test of one group, times without follow-up.

    Raises:
        CohortError: There are no events or no comparable pairs, or the arrays do not fit each other.
    """
    rows = survival_rows(time, event, risk, stratum, patient)
    once = np.ones((1, len(rows.time)))
    return score_survival(rows, censoring(rows, once))


def survival_rows(
    time: npt.ArrayLike,
    event: npt.ArrayLike,
    risk: npt.ArrayLike,
    stratum: npt.ArrayLike | None,
    patient: npt.ArrayLike | None,
) -> SurvivalRows:
    """Return checked patients, with the times and curves of all of them; arguments as in `survival_metrics`."""
    time, event, risk, stratum = checked_survival(time, event, risk, stratum)
    patient = np.arange(len(time)) if patient is None else np.asarray(patient)
    times = evaluation_times(time, event)
    curves = cross_fold_curves(time, event, risk, stratum, patient, times) if times.size else None
    model, reference = curves or (None, None)
    return SurvivalRows(time, event, risk, stratum, times, model, reference, patient)


def score_survival(rows: SurvivalRows, known: CensoringCurve) -> dict[str, float | int | None]:
    """Return the `survival_metrics` of some patients, with the times, curves and censoring of all patients.

    Raises:
        CohortError: There are no events or no comparable pairs.
    """
    require_events(rows.event)
    weighted = resampled_survival(rows, np.ones((1, len(rows.time))), known)
    return {
        "c_index": _stratified_c_index(rows.time, rows.event, rows.risk, rows.stratum),
        **{name: float(values[0]) if np.isfinite(values[0]) else None for name, values in weighted.items()},
        "logrank_p": _logrank_p(rows),
        "n": len(rows.time),
        "n_events": int(rows.event.sum()),
    }


def resampled_survival(
    rows: SurvivalRows, weights: npt.NDArray[np.float64], known: CensoringCurve
) -> dict[str, npt.NDArray[np.float64]]:
    """Return (resamples,) values per metric that weights by censoring; NaN if a resample has none.

    The survival curves come from all patients: a resample changes the scored patients, not the fit of the curves.
    """
    scores = {"uno_c_index": uno_c_index(rows, weights, known), "td_auc": mean_auc(dynamic_auc(rows, weights, known))}
    for name, curves in (("ibs", rows.model), ("ibs_km", rows.reference)):
        missing = np.full(len(weights), np.nan)
        scores[name] = missing if curves is None else over_time(brier(rows, curves, weights, known), rows.times)
    return scores


def high_risk(
    risk: npt.ArrayLike, stratum: npt.ArrayLike, patient: npt.ArrayLike | None = None
) -> npt.NDArray[np.bool_]:
    """Return (n,) True for patients above the median risk of their stratum; a risk equal to the median is low.

    A patient whom several strata hold out is in one group. The group is that of the mean distance from the medians,
    each distance in standard deviations of its stratum.
    """
    risk, stratum = np.asarray(risk, dtype=float), np.asarray(stratum)
    above = np.zeros(len(risk))
    for one in np.unique(stratum):
        rows = stratum == one
        if not is_constant(risk[rows]):
            distance = risk[rows] - np.median(risk[rows])
            tied = np.abs(distance) <= tolerance(np.abs(risk[rows]).max())
            above[rows] = np.where(tied, 0, distance / risk[rows].std())
    if patient is None:
        return above > 0
    _, code = np.unique(np.asarray(patient), return_inverse=True)
    return (np.bincount(code, above) > ROUNDING)[code]


def first_rows(patient: npt.ArrayLike) -> npt.NDArray[np.int_]:
    """Return the row number of the first row of each patient, so that time, event and group of each count once."""
    return np.sort(np.unique(np.asarray(patient), return_index=True)[1])


def checked_survival(
    time: npt.ArrayLike, event: npt.ArrayLike, risk: npt.ArrayLike, stratum: npt.ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the four arrays, `event` as bool and a missing `stratum` as one stratum.

    Raises:
        CohortError: The shapes differ, a value is invalid, or there is no event and so no c-index.
    """
    time, risk = np.asarray(time, dtype=float), np.asarray(risk, dtype=float)
    event = np.asarray(event)
    stratum = np.zeros(time.shape, dtype=int) if stratum is None else np.asarray(stratum)
    if time.ndim != 1 or not time.shape == event.shape == risk.shape == stratum.shape:
        what = f"shapes differ: time {time.shape}, event {event.shape}, risk {risk.shape}, stratum {stratum.shape}"
        raise CohortError(what, where="survival_metrics", fix="pass one value per patient in each")
    if not (np.isfinite(time).all() and np.isfinite(risk).all() and np.isin(event, [0, 1]).all()):
        what = "times or risks are not finite, or events are not 0 or 1"
        raise CohortError(what, where="survival_metrics", fix="leave out patients without follow-up before evaluating")
    require_events(event)
    return time, event.astype(bool), risk, stratum


def require_events(event: np.ndarray) -> None:
    """Refuse patients if no patient has an event."""
    if not event.any():
        what = f"no patient has an event (n = {len(event)}): the c-index is not defined"
        raise CohortError(what, where="event", fix="evaluate more patients, or stratify the folds by event")


def _stratified_c_index(time: np.ndarray, event: np.ndarray, risk: np.ndarray, stratum: np.ndarray) -> float:
    agreeing, comparable, largest = 0.0, 0, 0
    for one in np.unique(stratum[event]):
        rows = stratum == one
        largest = max(largest, int(rows.sum()))
        if rows.sum() == 1:
            continue
        try:
            with np.errstate(invalid="ignore"):  # if all pairs are tied events
                counts = concordance_index_censored(event[rows], time[rows], risk[rows], tied_tol=TIED_TOL)
        except NoComparablePairException:
            continue
        _, concordant, discordant, tied, _ = counts
        agreeing += concordant + tied / 2
        comparable += concordant + discordant + tied
    if not comparable:
        what = "no two patients can be compared: every event is later than all other follow-up"
        if largest == 1:
            what = (
                "no two patients can be compared: each fold holds out one, and two models' risks have no common scale"
            )
        raise CohortError(what, where="time, event", fix="evaluate more patients, or use fewer folds")
    return float(agreeing / comparable)


def _logrank_p(rows: SurvivalRows) -> float | None:
    """Return the log-rank p of the two risk groups, in which each patient counts once; None if there is one group."""
    high = high_risk(rows.risk, rows.stratum, rows.patient)
    once = np.arange(len(high)) if rows.patient is None else first_rows(rows.patient)
    time, event, high = rows.time[once], rows.event[once], high[once]
    if high.all() or not high.any():
        return None
    p = logrank_test(time[high], time[~high], event[high], event[~high]).p_value
    return float(p) if np.isfinite(p) else None
