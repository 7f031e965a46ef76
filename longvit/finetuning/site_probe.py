"""Probe of hospitals: how well a linear classifier recognises them by a model's representations of patients.

A model can use the look of a hospital's slides in place of biology (Howard et al. 2021,
doi:10.1038/s41467-021-24698-1).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from longvit.formats.site_probe_json import Probed, SiteProbe

LEAST_PATIENTS = 5
"""Fewest patients of a hospital or class in the probe, and the parts that the patients are divided into."""


def site_probe(
    vectors_ND: Float[np.ndarray, "N D"],
    patients: Sequence[str],
    sites: Mapping[str, str],
    labels: Mapping[str, object],
    seed: int,
) -> SiteProbe:
    """Return the probes for hospital and label, on the same patients: those of hospitals with at least five.

    Args:
        vectors_ND: A representation of each slide.
        patients: Patient of each slide; a patient's vectors are averaged.
        sites: Hospital of each patient, if it is known.
        labels: Class or event of each patient.
        seed: Seed of the parts.
    """
    averaged = pd.DataFrame(vectors_ND).groupby(np.array(patients)).mean()
    site = pd.Series({case: sites[case] for case in averaged.index if case in sites}, dtype=object)
    counts = site.value_counts()
    site = site[site.map(counts) >= LEAST_PATIENTS]
    if site.nunique() < 2:
        few = f"{site.nunique()} of {len(counts)} known hospitals have {LEAST_PATIENTS} or more held-out patients"
        unknown = "no patient's hospital is known: name its column with site_column"
        reason = f"{few}, and the probe needs two" if len(counts) else unknown
        return SiteProbe(n_patients=len(site), site=None, label=None, reason=reason)
    kept = averaged.loc[site.index].to_numpy()
    label = pd.Series({case: labels[case] for case in site.index}).astype(str)
    return SiteProbe(n_patients=len(site), site=probe(kept, site, seed), label=probe(kept, label, seed), reason=None)


def probe(vectors_ND: Float[np.ndarray, "N D"], classes: pd.Series, seed: int) -> Probed | None:
    """Return the cross-validated balanced accuracy of logistic regression on standardised vectors, one per patient.

    Returns:
        None if there are not two classes with at least five patients each; rarer classes are left out.
    """
    counts = Counter(classes)
    common = {name for name, count in counts.items() if count >= LEAST_PATIENTS}
    if len(common) < 2:
        return None
    inside = classes.isin(common).to_numpy()
    truth = classes.to_numpy()[inside]
    judge = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000))
    parts = StratifiedKFold(LEAST_PATIENTS, shuffle=True, random_state=seed)
    found = cross_val_predict(judge, vectors_ND[inside], truth, cv=parts)
    guess = 1 / len(common)
    error = math.sqrt(sum(guess * (1 - guess) / counts[name] for name in common)) * guess
    return Probed(
        n_classes=len(common),
        balanced_accuracy=float(balanced_accuracy_score(truth, found)),
        chance_error=error,
    )
