"""Metrics of a classification, from labels and probabilities of patients. Pure functions; computed by scikit-learn."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    recall_score,
    roc_auc_score,
)

from preprocessing.errors import CohortError

CLASSIFICATION_METRICS = ("auroc", "auprc", "balanced_accuracy", "f1", "kappa", "accuracy", "ece")
"""Names of the metrics, the headline first."""
CALIBRATION_BINS = 10
"""Number of bins of equal width between 0 and 1 in which stated and observed shares are compared."""


def classification_metrics(
    label: npt.ArrayLike, probability: npt.ArrayLike, *, classes: Sequence[str] | None = None
) -> dict[str, float | int]:
    """Return how well probabilities separate classes, for n patients and C classes.

    `auroc` and `auprc` (average precision) are of the second of two classes, or the mean over one-vs-rest problems
    (macro) of more classes. `balanced_accuracy` (mean recall), `f1` (macro), `kappa` (Cohen's, unweighted) and
    `accuracy` use the most probable class. Means are over the classes that occur in `label`.

    `ece` is the expected calibration error (Naeini et al., AAAI 2015) of the probabilities that `stated` returns. On
    few patients it is above 0 even for a calibrated model.

    Example:
        >>> classification_metrics([0, 0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]])["auroc"]
        0.75

    Args:
        label: (n,) class numbers 0..C-1, or class names if `classes` is given.
        probability: (n, C), rows sum to 1.
        classes: The C names, in the order of the columns of `probability`.

    Returns:
        The metrics of `CLASSIFICATION_METRICS`, and `n`.

    Raises:
        CohortError: There are no patients or one class only, a label is unknown, or the arrays do not fit each other.
    """
    probability = np.asarray(probability, dtype=float)
    truth = label_codes(label, classes)
    check_classification(truth, probability)
    present = np.unique(truth)
    predicted = probability.argmax(axis=1)
    problems = [(truth == c, probability[:, c]) for c in scored_classes(truth, probability.shape[1])]
    macro = {"labels": present, "average": "macro", "zero_division": 0}
    return {
        "auroc": float(np.mean([roc_auc_score(positive, score) for positive, score in problems])),
        "auprc": float(np.mean([average_precision_score(positive, score) for positive, score in problems])),
        "balanced_accuracy": float(recall_score(truth, predicted, **macro)),
        "f1": float(f1_score(truth, predicted, **macro)),
        "kappa": float(cohen_kappa_score(truth, predicted)),
        "accuracy": float(accuracy_score(truth, predicted)),
        "ece": float(
            sum(one["share"] * abs(one["observed"] - one["stated"]) for one in reliability(truth, probability))
        ),
        "n": len(truth),
    }


def stated(truth: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the stated probability of each patient, (n,), and whether it came true, (n,) bool.

    For two classes this is the probability of the second; for more, of the most probable class (Guo et al., ICML 2017).
    """
    if probability.shape[1] == 2:
        return probability[:, 1], truth == 1
    predicted = probability.argmax(axis=1)
    return probability.max(axis=1), truth == predicted


def calibration_bin(confidence: np.ndarray) -> np.ndarray:
    """Return (n,) the number of the bin of equal width that contains a probability; a bin includes its upper edge."""
    return np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)


def reliability(truth: np.ndarray, probability: np.ndarray) -> list[dict[str, float]]:
    """Return, per bin that contains a patient, the means `stated` and `observed`, the `share` of patients, and `n`."""
    confidence, came_true = stated(truth, probability)
    place = calibration_bin(confidence)
    bins = []
    for one in np.unique(place):
        rows = place == one
        means = {"stated": float(confidence[rows].mean()), "observed": float(came_true[rows].mean())}
        bins.append(means | {"share": float(rows.mean()), "n": int(rows.sum())})
    return bins


def label_codes(label: npt.ArrayLike, classes: Sequence[str] | None) -> np.ndarray:
    """Return (n,) class numbers of names or numbers.

    Raises:
        CohortError: A name is not in `classes`.
    """
    label = np.asarray(label)
    if classes is None:
        return label
    unknown = sorted(set(label.tolist()) - set(classes))
    if unknown:
        raise CohortError(
            f"unknown classes: {', '.join(map(str, unknown))}", where="label", fix=f"use one of {', '.join(classes)}"
        )
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in label.tolist()], dtype=int)


def scored_classes(truth: np.ndarray, n_classes: int) -> list[int]:
    """Return the classes whose one-vs-rest problem is scored: the second of two, else every class that occurs."""
    return [1] if n_classes == 2 else [int(c) for c in np.unique(truth)]


def check_classification(truth: np.ndarray, probability: np.ndarray) -> None:
    """Refuse arrays without an AUROC.

    Raises:
        CohortError: The shapes do not fit, a value is not finite or not a class, or there is only one class.
    """
    if probability.ndim != 2 or truth.shape != probability.shape[:1] or probability.shape[1] < 2:
        what = f"{truth.shape} labels do not fit {probability.shape} probabilities"
        raise CohortError(what, where="classification_metrics", fix="pass (n,) labels and (n, C) probabilities, C >= 2")
    n_classes = probability.shape[1]
    if not np.isfinite(probability).all() or not np.isin(truth, np.arange(n_classes)).all():
        what = "probabilities are not finite, or labels are not class numbers"
        raise CohortError(
            what, where="classification_metrics", fix=f"pass finite numbers and labels 0..{n_classes - 1}"
        )
    if len(np.unique(truth)) < 2:
        what = f"all patients are of one class (n = {len(truth)}): AUROC is not defined"
        raise CohortError(what, where="label", fix="evaluate more patients, or stratify the folds by label")
