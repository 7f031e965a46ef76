import datetime
import json
import subprocess
import sys

import pytest

from longvit.config import EvaluateConfig
from longvit.evaluation import evaluate_predictions
from longvit.evaluation import run as run_module
from longvit.evaluation.run import combine_reports, run
from preprocessing.errors import CohortError

DAY = datetime.date(2026, 1, 31)


def test_a_run_writes_metrics_report_and_figures(subtyping_csv, tmp_path):
    evaluation = run(EvaluateConfig(predictions=subtyping_csv, out=tmp_path / "out"), date=DAY)
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    figures = [f"figures/{name}.{kind}" for name in ("confusion", "folds", "roc") for kind in ("png", "svg")]
    assert files == [*figures, "metrics.json", "report.html"]
    assert evaluation.exit_code == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == evaluate_predictions(subtyping_csv)
    html = evaluation.report_path.read_text()
    assert evaluation.metrics["source"]["sha256"] in html
    assert "2026-01-31" in html


def test_the_default_folder_is_that_of_the_predictions(survival_csv):
    assert run(EvaluateConfig(predictions=survival_csv)).report_path == survival_csv.parent / "report.html"


def test_the_same_predictions_give_the_same_bytes(survival_csv, tmp_path):
    for name in ("first", "second"):
        run(EvaluateConfig(predictions=survival_csv, out=tmp_path / name), date=DAY)
    for first in (path for path in (tmp_path / "first").rglob("*") if path.is_file()):
        second = tmp_path / "second" / first.relative_to(tmp_path / "first")
        assert first.read_bytes() == second.read_bytes()


def test_bad_predictions_leave_an_earlier_report_alone(survival_csv, edited, tmp_path):
    report = run(EvaluateConfig(predictions=survival_csv, out=tmp_path / "out"), date=DAY).report_path
    before = report.read_bytes()
    with pytest.raises(CohortError):
        run(EvaluateConfig(predictions=edited(survival_csv, lambda t: t.assign(event="2")), out=tmp_path / "out"))
    assert report.read_bytes() == before


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_half_written(survival_csv, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(run_module.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        run(EvaluateConfig(predictions=survival_csv, out=tmp_path / "out"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_one_page_holds_subtyping_and_survival(subtyping_csv, survival_csv, tmp_path):
    evaluations = [
        run(EvaluateConfig(predictions=path, out=tmp_path / path.stem), date=DAY)
        for path in (subtyping_csv, survival_csv)
    ]
    html = combine_reports(evaluations, tmp_path / "both" / "report.html", "Both tasks").read_text()
    assert html.count("<h1>Both tasks</h1>") == 1
    assert html.index("<h2>Subtyping: LUAD, LUSC</h2>") < html.index("<h2>Survival</h2>")
    assert ">0.889</b>" in html
    assert ">0.714</b>" in html


def test_evaluation_loads_neither_torch_nor_pyplot():
    code = "import sys, longvit.evaluation.run; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
