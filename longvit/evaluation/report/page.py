"""Metrics and figures -> one self-contained HTML page, and the same table for the terminal. Pure: writes nothing."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from longvit.evaluation.report.content import ReportContent
from longvit.evaluation.report.drawing import RenderedFigure
from longvit.evaluation.report.metric_labels import (
    METRIC_NAMES,
    MISSING,
    bare_p,
    composition,
    decimal,
    heading,
    how_computed,
    interval,
)
from longvit.evaluation.report.text_tables import TextTable, models_table

PIXELS_PER_INCH = 85
"""Scale of a figure on a page that is wide enough; type of 9 points is then 10 to 11 pixels high."""
BRACKET = re.compile(r" \(([-+.\d]+ to [-+.\d]+)\)(.*)$")
"""An interval after a number, as `tables` writes it."""


@dataclass(frozen=True)
class Section:
    """Section of a page: a heading, and the HTML below it."""

    title: str
    body: str


def page(sections: Iterable[Section], title: str) -> str:
    """Return one self-contained HTML page: no scripts, no other files, nothing from the network."""
    template = Template(files("longvit.evaluation.report").joinpath("page.html").read_text(encoding="utf-8"))
    body = "\n".join(f"<section>\n<h2>{html.escape(one.title)}</h2>\n{one.body}\n</section>" for one in sections)
    return template.substitute(title=html.escape(title), body=body)


def evaluation_section(content: ReportContent) -> Section:
    """Return the section of a page for one evaluation, from its headline to its provenance; settings are folded."""
    metrics, escape = content.metrics, html.escape
    n = metrics["n_shuffles"]
    control = f" Grey: the same metric for models trained on shuffled labels, averaged, {n} per fold." if n else ""
    origins = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in content.provenance.items())
    parts = [
        _headline(metrics),
        _warning_box(metrics["warnings"]),
        '<div class="figures">' + "\n".join(map(_figure, content.drawings)) + "</div>",
        "<h3>Numbers</h3>",
        _table(metrics),
        f'<p class="note">{escape(how_computed(metrics) + control)}</p>',
        *map(_text_table, content.tables),
        "<h3>Provenance</h3>",
        f"<dl>{origins}</dl>",
        *(
            f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
            for title, text in content.settings.items()
        ),
    ]
    return Section(heading(metrics), "\n".join(part for part in parts if part))


def summary_table(metrics: Mapping[str, Any]) -> Group:
    """Return the headline metric per fold, mean and pooled, with shuffled labels and other models, for the terminal."""
    name = metrics["headline"]
    survival = metrics["task"] == "survival"
    table = Table(title=Text(heading(metrics)), title_justify="left", title_style="bold")
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
    others = models_table(metrics)
    return Group(table) if others is None else Group(table, _terminal(others))


def _terminal(found: TextTable) -> Table:
    """Return a table of the name, the headline metric and the difference of every model."""
    table = Table(title=found.title, title_justify="left", title_style="bold")
    for column in (0, 1, -1):
        table.add_column(found.head[column])
    for i, row in enumerate(found.rows):
        table.add_row(Text(row[0]), row[1], row[-1], style="bold" if i in found.best else None)
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
        ("control", "Shuffled labels", decimal(pooled["shuffled"]), f"{name} of models with nothing to learn"),
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


def _figure(one: RenderedFigure) -> str:
    caption, width = html.escape(one.caption), round(one.width_in * PIXELS_PER_INCH)
    shown = f'<figure role="img" aria-label="{caption}" style="flex-basis: {width}px">{one.svg}'
    return f"{shown}<figcaption>{caption}</figcaption></figure>"


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
    """Return the HTML of a number, with its control in grey next to it and its interval below."""
    if number is None or number["value"] is None:
        return MISSING
    write = bare_p if name == "logrank_p" else decimal
    spread = f"<small>± {number['sd']:.3f}</small>" if number.get("sd") is not None else ""
    shuffled = number["shuffled"]
    control = "" if shuffled is None else f'<span class="control">{html.escape(write(shuffled))}</span>'
    below = "" if number["low"] is None else f"<small>{interval(number)}</small>"
    return f"{html.escape(write(number['value']))}{control}{spread}{below}"


def _text_table(table: TextTable) -> str:
    lines = [f"<h3>{html.escape(table.title)}</h3>"]
    if table.rows:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in table.head)
        rows = "".join(_text_row(row, total=i in table.best) for i, row in enumerate(table.rows))
        lines.append(
            f'<div class="scroll"><table class="text"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
    lines += [f'<p class="note">{html.escape(note)}</p>' for note in table.notes]
    return "\n".join(lines)


def _text_row(row: Sequence[str], *, total: bool) -> str:
    cells = "".join(f"<td>{BRACKET.sub(_below, html.escape(cell))}</td>" for cell in row)
    return f'<tr class="total">{cells}</tr>' if total else f"<tr>{cells}</tr>"


def _below(found: re.Match[str]) -> str:
    """Move an interval below its number, and text after the interval below the interval."""
    rest = found[2].removeprefix(", ").strip()
    return f"<small>{found[1]}</small>" + (f"<small>{rest}</small>" if rest else "")
