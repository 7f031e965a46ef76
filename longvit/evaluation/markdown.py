"""The report as Markdown: the same sentences and tables as the page, figures as files beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from longvit.evaluation.drawing import Drawing
from longvit.evaluation.tables import TextTable, numbers_table
from longvit.evaluation.wording import heading, how_computed


def markdown_report(
    metrics: Mapping[str, Any],
    drawings: Sequence[Drawing],
    tables: Sequence[TextTable],
    provenance: Mapping[str, str],
    settings: Mapping[str, str],
) -> str:
    """The text of `report.md`.

    Args:
        metrics: Content of `metrics.json`.
        drawings: Figures; they lie under `figures/`.
        tables: What follows the numbers.
        provenance: Where the numbers come from.
        settings: Title -> YAML or command.
    """
    parts = [f"# {heading(metrics)}"]
    if metrics["warnings"]:
        parts += ["**Before you believe this**", "\n".join(f"- {_text(sentence)}" for sentence in metrics["warnings"])]
    parts += [*_table(numbers_table(metrics)), _text(how_computed(metrics))]
    for drawing in drawings:
        parts += [f"![{_text(drawing.caption)}](figures/{drawing.name}.svg)", f"*{_text(drawing.caption)}*"]
    for table in tables:
        parts += _table(table)
    parts += ["## Provenance", "\n".join(f"- {_text(name)}: {_text(value)}" for name, value in provenance.items())]
    parts += [f"### {title}\n\n```\n{text.rstrip()}\n```" for title, text in settings.items()]
    return "\n\n".join(parts) + "\n"


def _table(table: TextTable) -> list[str]:
    parts = [f"## {table.title}"]
    if table.rows:
        lines = [table.head, tuple("---" for _ in table.head), *(_bold(table, i) for i in range(len(table.rows)))]
        parts.append("\n".join(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines))
    return [*parts, *(_text(note) for note in table.notes)]


def _bold(table: TextTable, i: int) -> tuple[str, ...]:
    return tuple(f"**{cell}**" if cell and i in table.best else cell for cell in table.rows[i])


def _text(cell: str) -> str:
    """Text that a reader of Markdown shows as it is: no HTML, no ends of cells, one line."""
    escaped = cell.replace("\\", "\\\\").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(escaped.split())
