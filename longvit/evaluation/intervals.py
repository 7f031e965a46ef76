"""Bootstrap intervals over patients. A resample is a weight per row, so all resamples are one matrix product."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from longvit.cohort.numbers import TIED_TOL
from longvit.evaluation.metrics import CALIBRATION_BINS, calibration_bin, scored_classes, stated

RESAMPLES = 2_000
SEED = 0
MIN_COMPUTABLE = 0.5
"""Smallest share of resamples in which a metric must be defined to get an interval."""


def resample_weights(patient: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = SEED) -> npt.NDArray[np.float64]:
    """Return (resamples, n) the number of times that each row is drawn, drawing patients with replacement.

    All rows of a patient are drawn together. The order of rows does not matter.
    """
    _, code = np.unique(np.asarray(patient), return_inverse=True)
    n = int(code.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return drawn[:, code].astype(float)


def percentile_interval(values: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the central 95 % of resampled values (Efron's percentile interval); None if most of them are undefined."""
    known = values[np.isfinite(values)]
    if known.size < max(1, MIN_COMPUTABLE * values.size):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def resampled_classification(
    truth: npt.NDArray[np.int_], probability: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the `classification_metrics` of every resample.

    Args:
        truth: (n,) class numbers.
        probability: (n, C).
        weights: (resamples, n).

    Returns:
        (resamples,) per metric; NaN if a class of `truth` was not drawn.
    """
    curves = [
        _rank_metrics(truth == c, probability[:, c], weights) for c in scored_classes(truth, probability.shape[1])
    ]
    predicted = probability.argmax(axis=1)
    recall, f1 = [], []
    for c in np.unique(truth):
        is_true, is_predicted = truth == c, predicted == c
        hits, n_true = weights @ (is_true & is_predicted), weights @ is_true
        recall.append(ratio(hits, n_true))
        f1.append(np.where(n_true > 0, ratio(2 * hits, n_true + weights @ is_predicted), np.nan))
    return {
        "auroc": np.mean([auroc for auroc, _ in curves], axis=0),
        "auprc": np.mean([auprc for _, auprc in curves], axis=0),
        "balanced_accuracy": np.mean(recall, axis=0),
        "f1": np.mean(f1, axis=0),
        "kappa": _kappa(truth, predicted, weights),
        "accuracy": ratio(weights @ (truth == predicted), weights.sum(axis=1)),
        "ece": _calibration_error(*stated(truth, probability), weights),
    }


def resampled_c_index(
    survival: Mapping[str, npt.NDArray], stratum: npt.NDArray, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return (resamples,) the stratified c-index of every resample; NaN if no two drawn patients can be compared.

    Args:
        survival: `time`, `event`, `risk`, each (n,).
        stratum: (n,); pairs are compared only within a stratum.
        weights: (resamples, n).
    """
    agreeing = comparable = np.zeros(len(weights))
    for one in np.unique(stratum):
        rows = stratum == one
        time, event, risk = (np.asarray(survival[name])[rows] for name in ("time", "event", "risk"))
        drawn = weights[:, rows]
        pairs, agrees = comparable_pairs(time.astype(float), event.astype(bool), risk.astype(float))
        comparable = comparable + ((drawn @ pairs) * drawn).sum(axis=1)
        agreeing = agreeing + ((drawn @ agrees) * drawn).sum(axis=1)
    return ratio(agreeing, comparable)


def comparable_pairs(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two (n, n) arrays over pairs of patients.

    The first array is 1 if the row's event precedes the column's last follow-up, else 0. The second is the first times
    1, 1/2 or 0, as the risks agree, are tied or disagree.
    """
    outlived = (time[:, None] < time) | ((time[:, None] == time) & ~event)
    comparable = (event[:, None] & outlived).astype(float)
    return comparable, comparable * agreement(risk, risk)


def agreement(risk: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return (n, m): 1 if the row's risk is higher than the column's, 1/2 if they are tied, else 0."""
    excess = risk[:, None] - other
    return np.where(np.abs(excess) <= TIED_TOL, 0.5, excess > 0)


def _kappa(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (resamples,) Cohen's kappa, agreement beyond independent labels; NaN if only one class is left."""
    total = weights.sum(axis=1)
    agreed = ratio(weights @ (truth == predicted), total)
    classes = np.union1d(truth, predicted)
    products = ((weights @ (truth == c)) * (weights @ (predicted == c)) for c in classes)
    by_chance = ratio(sum(products, start=np.zeros(len(weights))), total**2)
    return ratio(agreed - by_chance, 1 - by_chance)


def _calibration_error(confidence: np.ndarray, came_true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (resamples,) the gap of stated and observed share in each bin, averaged over patients."""
    gap = (came_true - confidence)[:, None] * (calibration_bin(confidence)[:, None] == np.arange(CALIBRATION_BINS))
    return ratio(np.abs(weights @ gap).sum(axis=1), weights.sum(axis=1))


def _rank_metrics(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (resamples,) AUROC and average precision, from the weights of positives and negatives at each score."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    drawn, positive = weights[:, order], positive[order]
    gained = np.add.reduceat(drawn * positive, starts, axis=1)
    lost = np.add.reduceat(drawn * ~positive, starts, axis=1)
    n_gained, n_lost = gained.sum(axis=1), lost.sum(axis=1)
    below = n_lost[:, None] - lost.cumsum(axis=1) + lost / 2
    auroc = ratio((gained * below).sum(axis=1), n_gained * n_lost)
    precision = np.nan_to_num(ratio(gained.cumsum(axis=1), (gained + lost).cumsum(axis=1)))
    auprc = np.where(n_lost > 0, ratio((gained * precision).sum(axis=1), n_gained), np.nan)
    return auroc, auprc


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return `part / whole`; NaN if `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)
