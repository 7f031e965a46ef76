import html
import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from longvit.config import EvaluateConfig
from longvit.evaluation import evaluate_predictions
from longvit.evaluation.evaluate import run
from longvit.evaluation.predictions import read_predictions
from longvit.evaluation.report.content import ReportContent
from longvit.evaluation.report.figures import draw_figures
from longvit.evaluation.report.page import Section, evaluation_section, page, summary_table
from longvit.evaluation.report.text_tables import detail_tables


def text_of(text: str) -> str:
    parser, found = HTMLParser(), []
    parser.handle_data = found.append
    parser.feed(text)
    return re.sub(r"\s+", " ", " ".join(found))


def section_of(path) -> Section:
    metrics = evaluate_predictions(path)
    drawings, tables = draw_figures(read_predictions(path), metrics), detail_tables(metrics, None)
    settings = {"Command": "longvit evaluate <p>"}
    return evaluation_section(ReportContent(metrics, drawings, tables, {"Date": "2026-01-31"}, settings))


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
    found = page([section_of(request.getfixturevalue(name))], "A page")
    assert not re.search(r"<script|<link|<img|@import|src=|url\(\s*['\"]?http", found)
    assert not re.search(r"""href=["'](?!#)""", found)


def test_names_from_the_file_are_escaped(subtyping_csv, edited):
    rename = lambda table: table.rename(columns={"p_LUSC": "p_<i>"}).assign(label=table["label"].replace("LUSC", "<i>"))
    section = section_of(edited(subtyping_csv, rename))
    found = page([section], "<script>alert(1)</script>")
    assert "<i>" not in found
    assert "<script" not in found
    assert "3 &lt;i&gt;" in found


def test_the_terminal_shows_folds_mean_and_pooled_beside_the_control(subtyping_csv):
    rows = [re.split(r"[^\w.±%]*[│┃][^\w.±%]*", line) for line in printed(subtyping_csv).splitlines()]
    cells = {row[1]: row[2:-1] for row in rows if len(row) > 3}
    assert cells["0"][0:2] == ["4", "0.750"]
    assert cells["0"][-1] == "0.250"
    assert "0.875 ± 0.177" in cells["mean"]
    assert cells["pooled"][:2] == ["6", "0.889"]


def test_the_terminal_shows_events_of_survival(survival_csv):
    assert re.search(r"pooled\W+7\W+5\W+0\.714", printed(survival_csv))


ODD = [("[/]", ":smile:"), ("<b>&", "a|b*c*"), ("[bold red]x", "[x](http://y)``")]


@pytest.mark.parametrize("names", ODD)
def test_names_with_markup_are_shown_as_they_are(subtyping_csv, edited, tmp_path, names):
    labels = dict(zip(("LUAD", "LUSC"), names, strict=True))
    columns = {f"p_{old}": f"p_{new}" for old, new in labels.items()}
    path = edited(subtyping_csv, lambda table: table.rename(columns=columns).replace({"label": labels}))
    other = {f"{names[0]}2": path}
    metrics = run(EvaluateConfig(predictions=path, out=tmp_path / "out", name=names[0], baseline=other)).metrics
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_table(metrics))
    shown = console.export_text()
    assert f"Subtyping: {', '.join(names)}" in shown
    assert f"{names[0]}2" in shown
    escaped = [re.sub(r"[\\|\[\]*`]", r"\\\g<0>", name.replace("<", "&lt;")) for name in names]
    assert (tmp_path / "out" / "report.md").read_text().splitlines()[0] == f"# Subtyping: {', '.join(escaped)}"
    assert f"{html.escape(', '.join(names))}</h2>" in (tmp_path / "out" / "report.html").read_text()


def test_a_fence_in_the_settings_does_not_end_the_block(subtyping_csv, tmp_path):
    subtyping_csv.with_name("config.yaml").write_text('a: "1\\n```\\n<script>"\n')
    run(EvaluateConfig(predictions=subtyping_csv, out=tmp_path / "out"))
    text = (tmp_path / "out" / "report.md").read_text()
    assert re.search(r"\n````\na: '1\s+```\s+<script>'\n````\n", text)


def test_the_report_names_the_unit_of_time(survival_csv, edited, tmp_path):
    path = edited(survival_csv, lambda table: table.assign(time_unit="days"))
    assert evaluate_predictions(path)["time_unit"] == "days"
    text = text_of(section_of(path).body)
    assert "Median time to event, days" in text
    assert "Times are in days." in text
    assert "month" not in text.lower()


def test_without_an_audit_leaks_are_unknown(survival_csv):
    assert "it is unknown whether these splits have leaks" in text_of(section_of(survival_csv).body)
