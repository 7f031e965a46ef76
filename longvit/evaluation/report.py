"""Metrics and figures -> one self-contained HTML page, and the same table for the terminal. Pure: writes nothing."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from rich.table import Table

from longvit.evaluation.figures import Drawing
from longvit.evaluation.wording import METRIC_NAMES, MISSING, composition, decimal, interval, p_value

HOW = {
    "subtyping": (
        "AUROC and AUPRC are those of the second class, or the mean over one-vs-rest problems where there are more "
        "than two; balanced accuracy, F1 (macro) and accuracy judge the most probable class. Pooled takes the "
        "probabilities of all held-out patients together."
    ),
    "survival": (
        "The c-index is Harrell's: the share of comparable pairs of patients in which the one with the higher risk has "
        "the earlier event. Pooled counts only pairs within the same fold, because the risks of two models are on "
        "different scales. The log-rank test compares patients above and below the median risk of their fold."
    ),
}
HOW_ALL = (
    " A patient with several slides counts once per fold: slides are averaged. Intervals are 95 % percentile intervals "
    "from {resamples:,} bootstrap resamples of patients; ± is the standard deviation over folds."
)
HOW_CONTROL = " Grey: the same number for models trained on shuffled labels, mean over {n_shuffles} of them."


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, and HTML below it."""

    title: str
    body: str


def page(sections: Iterable[Section], title: str) -> str:
    """One self-contained HTML page: no scripts, no files beside it, nothing from the network."""
    template = Template(files("longvit.evaluation").joinpath("report.html").read_text(encoding="utf-8"))
    body = "\n".join(f"<section>\n<h2>{html.escape(one.title)}</h2>\n{one.body}\n</section>" for one in sections)
    return template.substitute(title=html.escape(title), body=body)


def evaluation_section(
    metrics: Mapping[str, Any], drawings: Sequence[Drawing], provenance: Mapping[str, str]
) -> Section:
    """The part of a page that one evaluation fills, from its headline down to where the numbers came from."""
    how = HOW[metrics["task"]] + HOW_ALL.format(**metrics["bootstrap"])
    if metrics["n_shuffles"]:
        how += HOW_CONTROL.format(**metrics)
    parts = [
        _headline(metrics),
        _warning_box(metrics["warnings"]),
        _figures(drawings),
        "<h3>Numbers</h3>",
        _table(metrics),
        f'<p class="note">{html.escape(how)}</p>',
        "<h3>Provenance</h3>",
        _definitions(provenance),
    ]
    return Section(heading(metrics), "\n".join(part for part in parts if part))


def heading(metrics: Mapping[str, Any]) -> str:
    """`Survival`, or `Subtyping: LUAD, LUSC`."""
    return "Survival" if metrics["task"] == "survival" else f"Subtyping: {', '.join(metrics['classes'])}"


def summary_table(metrics: Mapping[str, Any]) -> Table:
    """The headline number per fold, averaged and pooled, beside shuffled labels, for the terminal."""
    name = metrics["headline"]
    survival = metrics["task"] == "survival"
    table = Table(title=heading(metrics), title_justify="left", title_style="bold")
    table.add_column("fold")
    table.add_column("patients", justify="right")
    if survival:
        table.add_column("events", justify="right")
    table.add_column(METRIC_NAMES[name], justify="right")
    table.add_column("95 % interval")
    table.add_column("shuffled labels", justify="right", style="dim")
    counts = lambda of: [str(of["n_patients"])] + ([str(of["n_events"])] if survival else [])
    for fold in metrics["folds"]:
        table.add_row(str(fold["fold"]), *counts(fold), *_cells(fold["metrics"] and fold["metrics"][name]))
    table.add_section()
    mean = metrics["mean"][name]
    value, *others = _cells(mean)
    spread = "" if mean["sd"] is None else f" ± {mean['sd']:.3f}"
    table.add_row("mean", *[""] * len(counts(metrics)), value + spread, *others)
    table.add_row("pooled", *counts(metrics), *_cells(metrics["pooled"][name]), style="bold")
    return table


def _cells(number: Mapping[str, float | None] | None) -> list[str]:
    if number is None:
        return [MISSING] * 3
    return [decimal(number["value"]), interval(number), decimal(number["shuffled"])]


def _headline(metrics: Mapping[str, Any]) -> str:
    name = METRIC_NAMES[metrics["headline"]]
    pooled, mean = metrics["pooled"][metrics["headline"]], metrics["mean"][metrics["headline"]]
    spread = "one fold" if mean["sd"] is None else f"± {mean['sd']:.3f} over {len(metrics['folds'])} folds"
    cards = [
        ("main", f"{name}, pooled", decimal(pooled["value"]), f"95 % interval {interval(pooled)}"),
        ("control", "Shuffled labels", decimal(pooled["shuffled"]), f"the same {name} where there is nothing to learn"),
        ("", "Mean of folds", decimal(mean["value"]), spread),
        ("", "Patients", str(metrics["n_patients"]), f"{composition(metrics)}, {metrics['n_slides']} slides"),
    ]
    return '<div class="headline">' + "".join(_card(*card) for card in cards) + "</div>"


def _card(kind: str, above: str, number: str, below: str) -> str:
    above, below = html.escape(above), html.escape(below)
    return f'<div class="card {kind}"><span>{above}</span><b>{number}</b><span class="muted">{below}</span></div>'


def _warning_box(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in warnings)
    return f'<div class="warnings"><strong>Before you believe this</strong><ul>{items}</ul></div>'


def _figures(drawings: Sequence[Drawing]) -> str:
    shown = (
        f'<figure role="img" aria-label="{html.escape(one.caption)}" style="flex-grow: {one.aspect}">{one.svg}'
        f"<figcaption>{html.escape(one.caption)}</figcaption></figure>"
        for one in drawings
    )
    return '<div class="figures">' + "\n".join(shown) + "</div>"


def _table(metrics: Mapping[str, Any]) -> str:
    names = list(metrics["pooled"])
    head = "".join(f"<th>{name}</th>" for name in ("Fold", "Patients", *(METRIC_NAMES[name] for name in names)))
    rows = [_fold_row(fold, names) for fold in metrics["folds"]]
    rows.append(_row("Mean ± sd", "", [_cell(name, metrics["mean"].get(name)) for name in names], total=True))
    pooled = [_cell(name, metrics["pooled"][name]) for name in names]
    rows.append(_row("Pooled", _patients(metrics), pooled, total=True))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _fold_row(fold: Mapping[str, Any], names: Sequence[str]) -> str:
    if fold["metrics"] is None:
        reason = f'<td class="muted" colspan="{len(names)}">{html.escape(fold["reason"])}</td>'
        return f"<tr><td>{fold['fold']}</td><td>{_patients(fold)}</td>{reason}</tr>"
    return _row(str(fold["fold"]), _patients(fold), [_cell(name, fold["metrics"][name]) for name in names], total=False)


def _row(place: str, patients: str, cells: Sequence[str], *, total: bool) -> str:
    shown = "".join(f"<td>{cell}</td>" for cell in (place, patients, *cells))
    return f'<tr class="total">{shown}</tr>' if total else f"<tr>{shown}</tr>"


def _patients(counts: Mapping[str, Any]) -> str:
    return f"{counts['n_patients']}<small>{html.escape(composition(counts))}</small>"


def _cell(name: str, number: Mapping[str, float | None] | None) -> str:
    """A number, its control in grey beside it, and its interval below."""
    if number is None or number["value"] is None:
        return MISSING
    write = decimal if name != "logrank_p" else lambda p: p_value(p).removeprefix("p = ").removeprefix("p ")
    spread = f"<small>± {number['sd']:.3f}</small>" if number.get("sd") is not None else ""
    control = (
        "" if number["shuffled"] is None else f'<span class="control">{html.escape(write(number["shuffled"]))}</span>'
    )
    below = "" if number["low"] is None else f"<small>{interval(number)}</small>"
    return f"{html.escape(write(number['value']))}{control}{spread}{below}"


def _definitions(pairs: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in pairs.items()) + "</dl>"
