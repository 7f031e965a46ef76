"""Cox regression of the predicted risk, alone and together with age, sex and stage."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from longvit.cohort.clinical import ClinicalCovariates
from longvit.cohort.numbers import is_constant
from longvit.evaluation.curves import standardised
from longvit.evaluation.partial_likelihood import fit_cox

RISK_NAME = "Predicted risk, per sd"
EVENTS_PER_COVARIATE = 10
"""Smallest number of events per covariate; with fewer a regression is unstable (Peduzzi et al., J Clin Epidemiol
1995)."""


def cox_regression(rows: pd.DataFrame, clinical: ClinicalCovariates | None) -> dict[str, Any]:
    """Return the hazard ratios of the predicted risk, alone and adjusted.

    The risk is in standard deviations from the mean of its fold; for a patient whom several folds hold out, it is the
    mean over these folds. `alone` regresses on each covariate by itself, `adjusted` on all covariates, both on the
    patients who have all values. Ties in the partial likelihood are Efron's; intervals are Wald's, 95 %.

    Args:
        rows: Held-out patients: `patient_id, fold, time, event, risk`.
        clinical: Covariates; None gives the risk alone.

    Returns:
        `n`, `n_events`, `covariates` and `notes`. Each covariate has `name`, `alone` and `adjusted`, the last two with
        `hazard_ratio, low, high, p`, or None if a fit does not converge. `adjusted` also has `ph_p`, the Schoenfeld
        test of proportional hazards.
    """
    table = rows.assign(**{RISK_NAME: standardised(rows["risk"].to_numpy(), rows["fold"].to_numpy())})
    table = table.groupby("patient_id")[["time", "event", RISK_NAME]].mean()
    notes: list[str] = []
    if clinical is not None:
        notes += clinical.notes
        everybody = len(table)
        table = table.join(clinical.table).dropna()
        if len(table) < everybody:
            notes.append(f"{everybody - len(table)} of {everybody} patients lack a value and are left out.")
    covariates = [name for name in table.columns[2:] if not is_constant(table[name].to_numpy())]
    notes += [f"{name} is left out: it is the same for all." for name in table.columns[2:] if name not in covariates]
    n_events = int(table["event"].sum())
    if n_events < EVENTS_PER_COVARIATE * len(covariates):
        notes.append(
            f"{n_events} events for {len(covariates)} covariates: with fewer than ten events each, the regression is "
            "unstable."
        )
    alone = {name: _fit(table, [name]).get(name) for name in covariates}
    adjusted = _fit(table, covariates) if len(covariates) > 1 else {}
    if None in alone.values() or (len(covariates) > 1 and not adjusted):
        notes.append("A dash marks a fit that does not converge, for instance if a covariate orders all events.")
    entries = [{"name": name, "alone": alone[name], "adjusted": adjusted.get(name)} for name in covariates]
    return {"n": len(table), "n_events": n_events, "covariates": entries, "notes": notes}


def _fit(table: pd.DataFrame, covariates: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Return hazard ratio, interval and p per covariate; empty if the likelihood has no maximum."""
    design = table[list(covariates)].to_numpy(dtype=float)
    fit = fit_cox(table["time"].to_numpy(dtype=float), table["event"].to_numpy() == 1, design)
    if fit is None:
        return {}
    reach = NormalDist().inv_cdf(0.975) * fit.error
    columns = {
        "hazard_ratio": np.exp(fit.coefficient),
        "low": np.exp(fit.coefficient - reach),
        "high": np.exp(fit.coefficient + reach),
        "p": fit.p,
        "ph_p": fit.ph_p,
    }
    return {
        name: {key: float(values[i]) if np.isfinite(values[i]) else None for key, values in columns.items()}
        for i, name in enumerate(covariates)
    }
