"""Tables of text from metrics.json, shown alike by the page, the Markdown report and the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longvit.evaluation.report.metric_labels import (
    METRIC_NAMES,
    MISSING,
    bare_p,
    composition,
    decimal,
    interval,
    p_value,
)
from longvit.formats.audit_json import AUDIT, AuditFile
from longvit.formats.metrics_json import METRICS

_SITES = "Hospitals in the representations"


@dataclass(frozen=True)
class TextTable:
    """A table of text: heading, names of the columns, rows, and sentences below; `best` rows are emphasised."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    best: frozenset[int] = frozenset()


def numbers_table(metrics: Mapping[str, Any]) -> TextTable:
    """Return the table of every metric per fold, mean and pooled, with intervals."""
    names = list(metrics["pooled"])
    rows = [("Fold", "Patients", *(METRIC_NAMES[name] for name in names))]
    for fold in metrics["folds"]:
        cells = [_number(name, fold["metrics"] and fold["metrics"][name]) for name in names]
        rows.append((str(fold["fold"]), f"{fold['n_patients']} ({composition(fold)})", *cells))
    mean = metrics["mean"]
    cells = [f"{_number(name, mean.get(name))}{_spread(mean.get(name))}" for name in names]
    rows.append(("Mean ± sd", "", *cells))
    cells = [_number(name, metrics["pooled"][name]) for name in names]
    rows.append(("Pooled", f"{metrics['n_patients']} ({composition(metrics)})", *cells))
    totals = frozenset({len(rows) - 3, len(rows) - 2})
    if metrics["n_shuffles"]:
        control = [_number(name, {"value": metrics["pooled"][name]["shuffled"], "low": None}) for name in names]
        rows.append(("Pooled, shuffled labels", "", *control))
    return TextTable("Numbers", rows[0], tuple(rows[1:]), best=totals)


def models_table(metrics: Mapping[str, Any]) -> TextTable | None:
    """Return the table of all models, pooled, with controls and the model's lead over each; None without others."""
    if not metrics["models"]:
        return None
    names = [name for name in metrics["pooled"] if name not in ("accuracy", "logrank_p", "ibs_km")]
    headline = metrics["headline"]
    control = f"{METRIC_NAMES[headline]}, shuffled labels"
    head = ("Model", *(METRIC_NAMES[name] for name in names), control, f"Difference in {METRIC_NAMES[headline]}")
    rows = []
    for model in (metrics, *metrics["models"]):
        cells = [_number(name, model["pooled"][name]) for name in names]
        cells.append(decimal(model["pooled"][headline]["shuffled"]))
        cells.append(_difference(model["difference"]["pooled"].get(headline)) if rows else "")
        rows.append((model["name"], *cells))
    note = (
        f"All models predicted the same patients in the same folds. Differences are {metrics['name']} minus the other "
        "model, with paired bootstrap intervals and two-sided p: both models are scored on the same resamples of "
        f"patients. {METRICS} contains the differences of all metrics."
    )
    said = (f"{model['name']}: {sentence}" for model in metrics["models"] for sentence in model["notes"])
    return TextTable("Models", head, tuple(rows), (note, *said), frozenset({0}))


def groups_table(metrics: Mapping[str, Any]) -> TextTable:
    """Return the table of patients below and above the median risk of their fold: counts and median time to event."""
    median = lambda value: "not reached" if value is None else f"{value:.1f}"
    rows = tuple(
        (group["name"], str(group["n"]), str(group["n_events"]), median(group["median_time"]))
        for group in metrics["risk_groups"]
    )
    note = f"Log-rank test: {p_value(metrics['pooled']['logrank_p']['value'])}."
    head = ("Group", "Patients", "Events", f"Median time to event, {metrics['time_unit']}")
    return TextTable("Risk groups", head, rows, (note,))


def cox_table(cox: Mapping[str, Any]) -> TextTable:
    """Return the table of hazard ratios, alone and adjusted, with the test of proportional hazards."""
    rows = []
    for entry in cox["covariates"]:
        adjusted = entry["adjusted"]
        proportional = MISSING if adjusted is None else bare_p(adjusted["ph_p"])
        rows.append((entry["name"], *_hazard_ratio(entry["alone"]), *_hazard_ratio(adjusted), proportional))
    head = ("Covariate", "Hazard ratio, alone", "p", "Hazard ratio, adjusted", "p", "Proportional hazards, p")
    counted = f"{cox['n']} patients, {cox['n_events']} events; 95 % intervals of Wald."
    if any(entry["adjusted"] for entry in cox["covariates"]):
        counted += " Adjusted: all covariates together."
    return TextTable("Cox regression", head if rows else (), tuple(rows), (counted, *cox["notes"]))


def site_table(metrics: Mapping[str, Any]) -> TextTable | None:
    """Return the table of the probes of hospitals, fold by fold and their mean; None if the run has no probes."""
    folds = metrics.get("site_probe")
    if not folds:
        return None
    label = "Event" if metrics["task"] == "survival" else "Label"
    of = lambda name: [fold[name] for fold in folds if fold[name] is not None]
    rows: list[tuple[str, ...]] = [
        (str(one["fold"]), str(one["n_patients"]), *_probed(one["site"]), *_probed(one["label"]))
        for one in folds
        if one["site"] is not None
    ]
    without: dict[str, list[str]] = {}
    for one in folds:
        if one["site"] is None:
            without.setdefault(one["reason"], []).append(str(one["fold"]))
    notes = [f"Fold {', '.join(numbers)}: {reason}." for reason, numbers in without.items()]
    if not rows:
        return TextTable(_SITES, (), (), tuple(notes))
    means = [_mean_probed(of("site")), _mean_probed(of("label"))]
    rows.append(("Mean", "", *(cell for cells in means for cell in cells)))
    note = (
        "A linear probe of the held-out patients' representations, cross-validated by patient. If hospitals are "
        "recognised far better than by chance, the model can use them in place of biology; splits by whole hospitals "
        "(`longvit split --keep-sites-together`) show what is left without them."
    )
    head = ("Fold", "Patients", "Hospitals", "Hospital, balanced accuracy", "Chance")
    head += (f"{label}, classes", f"{label}, balanced accuracy", "Chance")
    return TextTable(_SITES, head, tuple(rows), (note, *notes), frozenset({len(rows) - 1}))


def audit_table(audit: AuditFile | None) -> TextTable:
    """Return the table of the audit findings of the splits."""
    if audit is None:
        note = f"There is no {AUDIT} next to the predictions: it is unknown whether these splits have leaks."
        return TextTable("Audit of the splits", (), (), (note,))
    notes = [] if audit.findings else ["The audit found nothing."]
    notes += [f"Verdict: {audit.verdict}."] if audit.verdict else []
    if audit.accepted:
        notes.append(f"Accepted: {', '.join(audit.accepted)}.")
    rows = tuple((one.level, one.what, one.where, one.fix) for one in audit.findings)
    return TextTable("Audit of the splits", ("Level", "What", "Where", "Fix") if rows else (), rows, tuple(notes))


def flow_table(audit: AuditFile | None) -> TextTable | None:
    """Return the table of the flow of patients from the table to the splits, or None if it is not known."""
    if audit is None or not audit.flow:
        return None
    before = [audit.flow[0][1], *(left for _, left in audit.flow)]
    rows = tuple((step, str(left), str(had - left)) for (step, left), had in zip(audit.flow, before, strict=False))
    left_out = tuple(f"{one.what}." for one in audit.findings if one.category == "left-out")
    return TextTable("Flow of patients", ("Patients", "Number", "Left out"), rows, left_out)


def detail_tables(metrics: Mapping[str, Any], audit: AuditFile | None) -> Sequence[TextTable]:
    """Return all tables of a report except the table of metrics, in order."""
    tables = [models_table(metrics)]
    if metrics["task"] == "survival":
        tables += [groups_table(metrics), cox_table(metrics["cox"])]
    tables += [site_table(metrics), flow_table(audit), audit_table(audit)]
    return [table for table in tables if table is not None]


def _probed(found: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if found is None:
        return MISSING, MISSING, MISSING
    chance = f"{1 / found['n_classes']:.3f} ± {found['chance_error']:.3f}"
    return str(found["n_classes"]), decimal(found["balanced_accuracy"]), chance


def _mean_probed(found: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    if not found:
        return MISSING, MISSING, MISSING
    mean = lambda values: f"{sum(values) / len(found):.3f}"
    return "", mean(one["balanced_accuracy"] for one in found), mean(1 / one["n_classes"] for one in found)


def _number(name: str, number: Mapping[str, Any] | None) -> str:
    if number is None or number["value"] is None:
        return MISSING
    if name == "logrank_p":
        return bare_p(number["value"])
    return decimal(number["value"]) + ("" if number["low"] is None else f" ({interval(number)})")


def _spread(number: Mapping[str, Any] | None) -> str:
    return "" if number is None or number["sd"] is None else f" ± {number['sd']:.3f}"


def _difference(number: Mapping[str, Any] | None) -> str:
    if number is None:
        return MISSING
    if number["low"] is None:
        return f"{number['value']:+.3f}"
    return f"{number['value']:+.3f} ({number['low']:+.3f} to {number['high']:+.3f}), {p_value(number['p'])}"


def _hazard_ratio(found: Mapping[str, float | None] | None) -> tuple[str, str]:
    if found is None or None in (found["hazard_ratio"], found["low"], found["high"]):
        return MISSING, MISSING
    return f"{found['hazard_ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})", bare_p(found["p"])
