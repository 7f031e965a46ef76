import pytest

from longvit.evaluation import evaluate_predictions
from longvit.evaluation.report.content import ReportContent
from longvit.evaluation.report.drawing import RenderedFigure
from longvit.evaluation.report.markdown import markdown_report
from longvit.evaluation.report.text_tables import TextTable

BEST = TextTable("Models", ("name", "AUROC"), (("a|b", "0.9"), ("*c*", "")), ("see [x](y)",), frozenset({0, 1}))


@pytest.fixture
def report(subtyping_csv):
    """(settings) -> the lines of a report of hand-computed predictions with one figure and one table."""

    def write(settings=None):
        metrics = evaluate_predictions(subtyping_csv) | {"warnings": ["Fold <1> is small"]}
        figure = RenderedFigure("roc", "ROC\nof *all*", 4.0, "<svg/>", b"")
        content = ReportContent(metrics, [figure], [BEST], {"Date": "2026-01-31"}, settings or {})
        return markdown_report(content).split("\n")

    return write


def test_a_report_has_its_parts_in_order(report):
    lines = report({"Command": "longvit evaluate"})
    parts = ["# Subtyping: LUAD, LUSC", "**Before you believe this**", "## Models", "## Provenance", "### Command"]
    assert [line for line in lines if line in parts] == parts
    assert "- Fold &lt;1> is small" in lines
    assert "- Date: 2026-01-31" in lines
    (pooled,) = (line for line in lines if line.startswith("| **Pooled**"))
    assert "0.889" in pooled


def test_text_is_shown_as_it_is_and_figures_are_linked(report):
    lines = report()
    assert "![ROC of \\*all\\*](figures/roc.svg)" in lines
    assert "*ROC of \\*all\\**" in lines
    assert "see \\[x\\](y)" in lines


def test_the_best_rows_of_a_table_are_bold_but_for_empty_cells(report):
    lines = report()
    start = lines.index("## Models") + 2
    assert lines[start : start + 4] == [
        "| name | AUROC |",
        "| --- | --- |",
        "| **a\\|b** | **0.9** |",
        "| **\\*c\\*** |  |",
    ]


@pytest.mark.parametrize(("text", "fence"), [("a: 1\n", "```"), ("x ``` y", "````"), ("`````", "``````")])
def test_no_text_ends_its_block_of_code(report, text, fence):
    lines = report({"Settings": text})
    assert lines[lines.index("### Settings") + 2 :] == [fence, text.rstrip(), fence, ""]
