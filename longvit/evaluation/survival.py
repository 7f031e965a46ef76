"""Numbers of a survival model, from times, events and risks. Pure; scikit-survival and lifelines compute."""

import numpy as np
import numpy.typing as npt
from lifelines.statistics import logrank_test
from sksurv.exceptions import NoComparablePairException
from sksurv.metrics import concordance_index_censored

from preprocessing.errors import CohortError

SURVIVAL_METRICS = ("c_index", "logrank_p")
"""Names of the numbers, the headline first."""
TIED_TOL = 1e-8
"""Risks closer than this are a tie and count one half, as in scikit-survival."""


def survival_metrics(
    time: npt.ArrayLike, event: npt.ArrayLike, risk: npt.ArrayLike, *, stratum: npt.ArrayLike | None = None
) -> dict[str, float | int | None]:
    """How well risks order the events of n patients.

    `c_index` is Harrell's (JAMA 1982): the share of comparable pairs in which the patient of higher risk has the
    earlier event. With `stratum` it is the stratified index: concordant over comparable pairs, both summed over strata,
    so that two patients are compared only within one stratum. This is what pooling over cross-validation folds needs:
    a Cox risk is known up to a constant, which differs between the models of two folds.

    `logrank_p` compares patients above the median risk (of their stratum) with the others; None where a group is empty.

    Example:
        >>> survival_metrics(time=[2, 5, 7, 9], event=[1, 1, 0, 1], risk=[0.9, 0.1, 0.4, 0.2])["c_index"]
        0.6

    Args:
        time: (n,) months to event or censoring.
        event: (n,) 1 observed, 0 censored.
        risk: (n,) higher means an earlier event.
        stratum: (n,) whose pairs may be compared, for instance the fold.

    Returns:
        `c_index`, `logrank_p`, `n` and `n_events`.

    Raises:
        CohortError: No events, no comparable pairs, or arrays that do not fit each other.
    """
    time, event, risk, stratum = checked_survival(time, event, risk, stratum)
    high = high_risk(risk, stratum)
    return {
        "c_index": _stratified_c_index(time, event, risk, stratum),
        "logrank_p": _logrank_p(time, event, high),
        "n": len(time),
        "n_events": int(event.sum()),
    }


def high_risk(risk: npt.ArrayLike, stratum: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """(n,) True for patients above the median risk of their stratum; a risk equal to the median is low."""
    risk, stratum = np.asarray(risk, dtype=float), np.asarray(stratum)
    high = np.zeros(len(risk), dtype=bool)
    for one in np.unique(stratum):
        rows = stratum == one
        high[rows] = risk[rows] > np.median(risk[rows])
    return high


def checked_survival(
    time: npt.ArrayLike, event: npt.ArrayLike, risk: npt.ArrayLike, stratum: npt.ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four arrays, `event` as bool and a missing `stratum` as one stratum; refuses what has no c-index."""
    time, risk = np.asarray(time, dtype=float), np.asarray(risk, dtype=float)
    event = np.asarray(event)
    stratum = np.zeros(time.shape, dtype=int) if stratum is None else np.asarray(stratum)
    if time.ndim != 1 or not time.shape == event.shape == risk.shape == stratum.shape:
        what = f"shapes differ: time {time.shape}, event {event.shape}, risk {risk.shape}, stratum {stratum.shape}"
        raise CohortError(what, where="survival_metrics", fix="pass one value per patient in each")
    if not (np.isfinite(time).all() and np.isfinite(risk).all() and np.isin(event, [0, 1]).all()):
        what = "times or risks are not finite, or events are not 0 or 1"
        raise CohortError(what, where="survival_metrics", fix="leave out patients without follow-up before evaluating")
    if not event.any():
        what = f"no patient has an event (n = {len(time)}): the c-index is not defined"
        raise CohortError(what, where="event", fix="evaluate more patients, or stratify the folds by event")
    return time, event.astype(bool), risk, stratum


def _stratified_c_index(time: np.ndarray, event: np.ndarray, risk: np.ndarray, stratum: np.ndarray) -> float:
    agreeing, comparable = 0.0, 0
    for one in np.unique(stratum[event]):
        rows = stratum == one
        try:
            counts = concordance_index_censored(event[rows], time[rows], risk[rows], tied_tol=TIED_TOL)
        except NoComparablePairException:
            continue
        _, concordant, discordant, tied, _ = counts
        agreeing += concordant + tied / 2
        comparable += concordant + discordant + tied
    if not comparable:
        what = "no two patients can be compared: every event is later than all other follow-up"
        raise CohortError(what, where="time, event", fix="evaluate more patients, or use fewer folds")
    return float(agreeing / comparable)


def _logrank_p(time: np.ndarray, event: np.ndarray, high: np.ndarray) -> float | None:
    if high.all() or not high.any():
        return None
    p = logrank_test(time[high], time[~high], event[high], event[~high]).p_value
    return float(p) if np.isfinite(p) else None
