"""Content of a report, which the page and the Markdown report show in the same order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longvit.evaluation.report.drawing import RenderedFigure
from longvit.evaluation.report.text_tables import TextTable


@dataclass(frozen=True)
class ReportContent:
    """Content of the report of one evaluation.

    Attributes:
        metrics: Content of `metrics.json`.
        drawings: Figures.
        tables: Tables after the table of metrics.
        provenance: Origin of the numbers, by name.
        settings: Title -> YAML or command.
    """

    metrics: Mapping[str, Any]
    drawings: Sequence[RenderedFigure]
    tables: Sequence[TextTable]
    provenance: Mapping[str, str]
    settings: Mapping[str, str]
