"""Report as Markdown: the same sentences and tables as the page, with figures as separate files."""

import re

from longvit.evaluation.report.content import ReportContent
from longvit.evaluation.report.metric_labels import heading, how_computed
from longvit.evaluation.report.text_tables import TextTable, numbers_table


def markdown_report(content: ReportContent) -> str:
    """Return the text of `report.md`; the files of the figures are in `figures/`."""
    metrics = content.metrics
    parts = [f"# {_text(heading(metrics))}"]
    if metrics["warnings"]:
        parts += [
            "**Before you believe this**",
            "\n".join(f"- {_text(sentence)}" for sentence in metrics["warnings"]),
        ]
    parts += [*_table(numbers_table(metrics)), _text(how_computed(metrics))]
    for drawing in content.drawings:
        parts += [f"![{_text(drawing.caption)}](figures/{drawing.name}.svg)", f"*{_text(drawing.caption)}*"]
    for table in content.tables:
        parts += _table(table)
    provenance = "\n".join(f"- {_text(name)}: {_text(value)}" for name, value in content.provenance.items())
    parts += ["## Provenance", provenance]
    parts += [f"### {title}\n\n{_fenced(text.rstrip())}" for title, text in content.settings.items()]
    return "\n\n".join(parts) + "\n"


def _table(table: TextTable) -> list[str]:
    parts = [f"## {table.title}"]
    if table.rows:
        rows = [[_text(cell) for cell in row] for row in (table.head, *table.rows)]
        for i in table.best:
            rows[i + 1] = [f"**{cell}**" if cell else cell for cell in rows[i + 1]]
        rows.insert(1, ["---"] * len(table.head))
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return [*parts, *(_text(note) for note in table.notes)]


def _text(cell: str) -> str:
    """Return text that Markdown shows unchanged: no HTML, links, emphasis or cell borders, in one line."""
    escaped = re.sub(r"[\\|\[\]*`]", r"\\\g<0>", cell.replace("<", "&lt;"))
    return " ".join(escaped.split())


def _fenced(text: str) -> str:
    """Return a block of code whose fence is longer than any in the text."""
    fence = "`" * max(3, *(1 + len(run) for run in re.findall("`+", text)), 0)
    return f"{fence}\n{text}\n{fence}"
