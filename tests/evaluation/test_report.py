import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from longvit.evaluation import evaluate_predictions
from longvit.evaluation.figures import draw_figures
from longvit.evaluation.predictions import read_predictions
from longvit.evaluation.report import Section, evaluation_section, page, summary_table
from longvit.evaluation.tables import detail_tables


def text_of(html: str) -> str:
    parser, found = HTMLParser(), []
    parser.handle_data = found.append
    parser.feed(html)
    return re.sub(r"\s+", " ", " ".join(found))


def section_of(path) -> Section:
    metrics = evaluate_predictions(path)
    drawings, tables = draw_figures(read_predictions(path), metrics), detail_tables(metrics, None)
    return evaluation_section(metrics, drawings, tables, {"Date": "2026-01-31"}, {"Command": "longvit evaluate <p>"})


def printed(path) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_table(evaluate_predictions(path)))
    return console.export_text()


def test_the_section_holds_the_numbers_of_a_hand_computed_file(subtyping_csv):
    text = text_of(section_of(subtyping_csv).body)
    assert "AUROC, pooled 0.889" in text
    assert "Shuffled labels 0.222" in text
    assert "0.875 ± 0.177 over 2 folds" in text
    assert "0.750 0.250" in text  # fold 0 beside its control
    assert "3 LUAD, 3 LUSC, 7 slides" in text
    assert "2026-01-31" in text


def test_the_section_says_how_the_c_index_was_pooled(survival_csv):
    text = text_of(section_of(survival_csv).body)
    assert "c-index, pooled 0.714" in text
    assert "Pooled counts only pairs within the same fold" in text
    assert "There is no shuffled-label control" in text
    assert "Grey:" not in text


def test_a_fold_without_numbers_shows_its_reason(subtyping_csv, edited):
    path = edited(subtyping_csv, lambda table: table[table["patient_id"] != "F"])
    assert "all patients are of one class (n = 1)" in text_of(section_of(path).body)


@pytest.mark.parametrize("name", ["subtyping_csv", "survival_csv"])
def test_the_page_needs_nothing_from_elsewhere(request, name):
    html = page([section_of(request.getfixturevalue(name))], "A page")
    assert not re.search(r"<script|<link|<img|@import|src=|url\(\s*['\"]?http", html)
    assert not re.search(r"""href=["'](?!#)""", html)


def test_names_from_the_file_are_escaped(subtyping_csv, edited):
    rename = lambda table: table.rename(columns={"p_LUSC": "p_<i>"}).assign(label=table["label"].replace("LUSC", "<i>"))
    section = section_of(edited(subtyping_csv, rename))
    html = page([section], "<script>alert(1)</script>")
    assert "<i>" not in html
    assert "<script" not in html
    assert "3 &lt;i&gt;" in html


def test_the_terminal_shows_folds_mean_and_pooled_beside_the_control(subtyping_csv):
    rows = [re.split(r"[^\w.±%]*[│┃][^\w.±%]*", line) for line in printed(subtyping_csv).splitlines()]
    cells = {row[1]: row[2:-1] for row in rows if len(row) > 3}
    assert cells["0"][0:2] == ["4", "0.750"]
    assert cells["0"][-1] == "0.250"
    assert "0.875 ± 0.177" in cells["mean"]
    assert cells["pooled"][:2] == ["6", "0.889"]


def test_the_terminal_shows_events_of_survival(survival_csv):
    assert re.search(r"pooled\W+7\W+5\W+0\.714", printed(survival_csv))
