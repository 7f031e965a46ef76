"""Survival metrics with inverse probability of censoring weights, for all bootstrap resamples at once.

An event is weighted by the share not censored before its time, as in R's riskRegression (tests). scikit-survival uses
the share after that time, which differs if events and censorings are tied; it also has no strata and no weighted
patients.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from longvit.evaluation.intervals import agreement, comparable_pairs, ratio

Floats = npt.NDArray[np.float64]

N_TIMES = 20
FIRST_EVENTS, LAST_FOLLOWED = 0.1, 0.9


@dataclass(frozen=True)
class SurvivalRows:
    """Patients, their risks, and the survival curves computed from these risks.

    Attributes:
        time: (n,) time to event or censoring.
        event: (n,) bool, observed.
        risk: (n,) higher means an earlier event.
        stratum: (n,); risks are compared only within a stratum.
        times: (T,) times of AUC and Brier score; empty if follow-up does not allow any.
        model: (n, T) predicted share without event; None if there is no curve.
        reference: (n, T) the same share from Kaplan-Meier, equal for all patients.
        patient: (n,) names, if a patient can be in several strata; None if each row is a patient.
    """

    time: Floats
    event: npt.NDArray[np.bool_]
    risk: Floats
    stratum: npt.NDArray
    times: Floats
    model: Floats | None = None
    reference: Floats | None = None
    patient: npt.NDArray | None = None

    def take(self, index: npt.NDArray) -> "SurvivalRows":
        """Return some of the patients; the times stay the same."""
        arrays = {name: getattr(self, name)[index] for name in ("time", "event", "risk", "stratum")}
        given = [name for name in ("model", "reference", "patient") if getattr(self, name) is not None]
        return replace(self, **arrays, **{name: getattr(self, name)[index] for name in given})


@dataclass(frozen=True)
class CensoringCurve:
    """Share of patients not yet censored, by Kaplan-Meier of the censoring times, per resample.

    Attributes:
        at_patients: (resamples, n) share just before each patient's own time.
        at_times: (resamples, T) share at each time.
    """

    at_patients: Floats
    at_times: Floats

    def take(self, index: npt.NDArray) -> "CensoringCurve":
        """Return the shares of some of the patients, as estimated from all."""
        return replace(self, at_patients=self.at_patients[:, index])


def evaluation_times(time: Floats, event: npt.NDArray[np.bool_]) -> Floats:
    """Return (T,) evenly spaced times, from the first tenth of events until 9 in 10 patients have left observation.

    The last time, tau, is also where Uno's c-index stops: later, the weights depend on a handful of patients. At least
    one patient is observed beyond tau. The result is empty if there are no such times.
    """
    earlier = time[time < time.max()]
    if not event.any() or not earlier.size:
        return np.empty(0)
    first = np.quantile(time[event], FIRST_EVENTS)
    tau = min(np.quantile(time, LAST_FOLLOWED), earlier.max())
    return np.linspace(first, tau, N_TIMES) if first < tau else np.empty(0)


def censoring(rows: SurvivalRows, weights: Floats) -> CensoringCurve:
    """Return Kaplan-Meier of the censoring times of every resample; at each time deaths leave before the censored."""
    distinct, place = np.unique(rows.time, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    at = lambda chosen: np.add.reduceat((weights * chosen)[:, order], starts, axis=1)
    died, censored = at(rows.event), at(~rows.event)
    left = (died + censored)[:, ::-1].cumsum(axis=1)[:, ::-1] - died
    share = (1 - np.nan_to_num(ratio(censored, left))).cumprod(axis=1)
    before = np.concatenate([np.ones((len(weights), 1)), share], axis=1)
    return CensoringCurve(before[:, place], before[:, np.searchsorted(distinct, rows.times, side="right")])


def uno_c_index(rows: SurvivalRows, weights: Floats, known: CensoringCurve) -> Floats:
    """Return (resamples,) Uno's c-index (Statistics in Medicine 2011) up to tau, within strata; NaN without pairs.

    Harrell's c-index depends on how long patients were observed. Here each pair is weighted by the inverse squared
    probability of not being censored before its event.
    """
    if not rows.times.size:
        return np.full(len(weights), np.nan)
    counted = rows.event & (rows.time < rows.times[-1])
    weight = _known_ratio(weights * counted, known.at_patients**2)
    agreeing = comparable = np.zeros(len(weights))
    for one in np.unique(rows.stratum):
        chosen = rows.stratum == one
        pairs, agrees = comparable_pairs(rows.time[chosen], rows.event[chosen], rows.risk[chosen])
        comparable = comparable + ((weight[:, chosen] @ pairs) * weights[:, chosen]).sum(axis=1)
        agreeing = agreeing + ((weight[:, chosen] @ agrees) * weights[:, chosen]).sum(axis=1)
    return ratio(agreeing, comparable)


def dynamic_auc(rows: SurvivalRows, weights: Floats, known: CensoringCurve) -> Floats:
    """Return (resamples, T) cumulative/dynamic AUC: patients with the event by a time against patients followed longer.

    Pairs are made within strata. NaN at times without such a pair.
    """
    weight = _known_ratio(weights * rows.event, known.at_patients)
    agreeing, pairs = np.zeros((2, len(weights), len(rows.times)))
    for one in np.unique(rows.stratum):
        for t, then in enumerate(rows.times):
            case = np.flatnonzero((rows.stratum == one) & rows.event & (rows.time <= then))
            control = np.flatnonzero((rows.stratum == one) & (rows.time > then))
            agrees = agreement(rows.risk[case], rows.risk[control])
            agreeing[:, t] += ((weight[:, case] @ agrees) * weights[:, control]).sum(axis=1)
            pairs[:, t] += weight[:, case].sum(axis=1) * weights[:, control].sum(axis=1)
    return ratio(agreeing, pairs)


def brier(rows: SurvivalRows, curves: Floats, weights: Floats, known: CensoringCurve) -> Floats:
    """Return (resamples, T) Brier scores of (n, T) survival curves (Graf et al., Statistics in Medicine 1999)."""
    died = rows.event[:, None] & (rows.time[:, None] <= rows.times)
    alive = rows.time[:, None] > rows.times
    of_died = _known_ratio(weights, known.at_patients) @ (died * curves**2)
    of_alive = ratio(weights @ (alive * (1 - curves) ** 2), known.at_times)
    return ratio(of_died + of_alive, np.broadcast_to(weights.sum(axis=1, keepdims=True), of_died.shape))


def over_time(values: Floats, times: Floats) -> Floats:
    """Return (resamples,) the mean of (resamples, T) values over time, by the trapezoid rule; NaN if a value is NaN."""
    if not times.size:
        return np.full(len(values), np.nan)
    return np.trapezoid(values, times, axis=1) / (times[-1] - times[0])


def mean_auc(values: Floats) -> Floats:
    """Return (resamples,) the mean of (resamples, T) AUCs over the times that have one; NaN if no time has one."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def _known_ratio(part: Floats, whole: Floats) -> Floats:
    """Return `part / whole`; 0 if `whole` is 0, which occurs only for patients who are not drawn."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
