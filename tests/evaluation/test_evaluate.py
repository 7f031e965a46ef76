import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest

from longvit.config import EvaluateConfig
from longvit.evaluation import evaluate_predictions
from longvit.evaluation.evaluate import combine_reports, evaluate_request, run
from longvit.evaluation.predictions import read_predictions
from longvit.runs.privacy import Pseudonyms
from preprocessing.errors import CohortError, OutputError

DAY = datetime.date(2026, 1, 31)


def test_a_run_writes_metrics_report_and_figures(subtyping_csv, tmp_path):
    evaluation = run(EvaluateConfig(predictions=subtyping_csv, out=tmp_path / "out"), date=DAY)
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    figures = [
        f"figures/{name}.{kind}" for name in ("calibration", "confusion", "folds", "roc") for kind in ("png", "svg")
    ]
    assert files == [*figures, "metrics.json", "report.html", "report.md"]
    assert evaluation.exit_code == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == evaluate_predictions(subtyping_csv)
    html = evaluation.report_path.read_text()
    assert evaluation.metrics["source"]["sha256"] in html
    assert "2026-01-31" in html


def test_the_default_folder_is_that_of_the_predictions(survival_csv):
    assert run(EvaluateConfig(predictions=survival_csv)).report_path == survival_csv.parent / "report.html"


def test_the_same_predictions_give_the_same_bytes(survival_csv, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        run(EvaluateConfig(predictions=survival_csv, out=out), date=DAY)
    written = {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert written == {path.relative_to(second): path.read_bytes() for path in second.rglob("*") if path.is_file()}
    assert {Path("report.html"), Path("metrics.json")} <= set(written)


def test_bad_predictions_leave_an_earlier_report_alone(survival_csv, edited, tmp_path):
    report = run(EvaluateConfig(predictions=survival_csv, out=tmp_path / "out"), date=DAY).report_path
    before = report.read_bytes()
    with pytest.raises(CohortError):
        run(EvaluateConfig(predictions=edited(survival_csv, lambda t: t.assign(event="2")), out=tmp_path / "out"))
    assert report.read_bytes() == before


def test_a_full_disk_leaves_nothing_half_written(survival_csv, small_disk):
    disk, _ = small_disk
    (disk / "others").write_bytes(bytes(900_000))
    with pytest.raises(OutputError, match="No space left"):
        run(EvaluateConfig(predictions=survival_csv, out=disk / "out"))
    assert [*disk.rglob("*.partial")] == []
    assert not (disk / "out" / "report.html").exists()


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


CLINICAL = """\
case_id,age,gender,stage
A,50,female,I
B,61,male,IIA
C,72,female,III
D,55,male,I
E,48,female,IV
F,66,male,II
G,59,male,III
"""


def test_a_report_holds_models_covariates_audit_settings_and_command(survival_csv, edited, tmp_path):
    baseline = edited(survival_csv, lambda table: table.assign(risk=table["time"]))
    (tmp_path / "clinical.csv").write_text(CLINICAL)
    leak = {"level": "accepted", "what": "A | B are in two parts", "where": "splits_0.csv", "fix": "move them"}
    gone = {"level": "note", "category": "left-out", "what": "2 patients without OS are left out: P, Q"}
    flow = [["in the table", 11160], ["with a known target", 480]]
    audit = {"findings": [leak, gone], "accepted": ["leak:A"], "flow": flow}
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    (tmp_path / "config.yaml").write_text("seed: 42\n")
    config = EvaluateConfig(
        predictions=survival_csv, name="LongViT", baseline={"ABMIL": baseline}, clinical=tmp_path / "clinical.csv"
    )
    metrics = run(config, date=DAY).metrics
    difference = metrics["models"][0]["difference"]["pooled"]["c_index"]
    assert difference["value"] == pytest.approx(5 / 7 - metrics["models"][0]["pooled"]["c_index"]["value"])
    assert len(metrics["cox"]["covariates"]) == 4
    assert "Errors that the audit found were accepted: leak:A." in metrics["warnings"]
    html, markdown = ((tmp_path / f"report.{kind}").read_text() for kind in ("html", "md"))
    for words in ("ABMIL", "Stage, per step I to IV", "seed: 42", "--baseline.ABMIL", "splits_0.csv", "low risk"):
        assert words in html
        assert words in markdown
    assert "| with a known target | 480 | 10680 |" in markdown
    assert "\n2 patients without OS are left out: P, Q." in markdown
    assert "A \\| B are in two parts" in markdown
    for name in ("folds", "kaplan_meier", "hazard_ratios", "models"):
        assert f"(figures/{name}.svg)" in markdown
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_every_row_of_a_markdown_table_has_the_columns_of_its_head(subtyping_csv):
    run(EvaluateConfig(predictions=subtyping_csv), date=DAY)
    text = (subtyping_csv.parent / "report.md").read_text()
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert tables
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert "| 0.889 (" in text.replace("**", "")
    assert "Pooled, shuffled labels |  | 0.222" in text


def test_the_runs_own_baselines_stand_beside_the_model_with_what_they_are(survival_csv, edited, tmp_path):
    folder = tmp_path / "baselines" / "abmil"
    folder.mkdir(parents=True)
    edited(survival_csv, lambda table: table.assign(risk=table["time"])).rename(folder / "predictions.csv")
    (folder / "notes.txt").write_text("gated attention over tiles\n")
    metrics = run(EvaluateConfig(predictions=survival_csv), date=DAY).metrics
    assert [model["name"] for model in metrics["models"]] == ["abmil"]
    assert "abmil: gated attention over tiles" in (tmp_path / "report.html").read_text()
    assert "| abmil | 0." in (tmp_path / "report.md").read_text()
    named = EvaluateConfig(predictions=survival_csv, baseline={"ABMIL": folder / "predictions.csv"})
    again = evaluate_request(named, read_predictions(survival_csv))
    assert [model["name"] for model in again["models"]] == ["ABMIL"]  # once, as the user calls it
    twice = EvaluateConfig(predictions=survival_csv, baseline={"abmil": survival_csv})
    with pytest.raises(CohortError, match="two models have the name abmil"):
        evaluate_request(twice, read_predictions(survival_csv))


def test_a_second_model_is_called_by_its_file(survival_csv, edited):
    other = edited(survival_csv, lambda table: table)
    metrics = evaluate_request(EvaluateConfig(predictions=survival_csv, compare=other), read_predictions(survival_csv))
    assert [model["name"] for model in metrics["models"]] == ["edited"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "edited"}, "two models have the name edited"),
        ({"clinical": "clinical.csv"}, "no patient of the predictions is in the clinical table"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(survival_csv, edited, tmp_path, change, says):
    (tmp_path / "clinical.csv").write_text("patient_id,age\nZ,50\n")
    change = {key: tmp_path / value if key == "clinical" else value for key, value in change.items()}
    config = EvaluateConfig(predictions=survival_csv, compare=edited(survival_csv, lambda table: table), **change)
    with pytest.raises(CohortError, match=says):
        evaluate_request(config, read_predictions(survival_csv))


def test_a_clinical_table_beside_subtypes_is_refused(subtyping_csv, tmp_path):
    (tmp_path / "clinical.csv").write_text(CLINICAL)
    config = EvaluateConfig(predictions=subtyping_csv, clinical=tmp_path / "clinical.csv")
    with pytest.raises(CohortError, match="for survival only"):
        run(config)


def test_an_audit_that_cannot_be_read_is_refused(subtyping_csv):
    subtyping_csv.with_name("audit.json").write_text('{"findings": 3}')
    with pytest.raises(CohortError, match="the audit cannot be read"):
        run(EvaluateConfig(predictions=subtyping_csv))


def test_evaluation_loads_neither_torch_nor_pyplot():
    heavy = ("torch", "matplotlib.pyplot")
    code = f"import sys, longvit.evaluation.evaluate; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def named_run(folder, predictions) -> dict[str, bytes]:
    """An evaluation of a run whose patients, slides and sites have names that are easily found, under pseudonyms."""
    folder.mkdir()
    lines = predictions.read_text().splitlines()
    rows = [
        ",".join([f"TCGA-05-{patient}", f"TCGA-05-{slide}", *rest]) for patient, slide, *rest in map(split, lines[1:])
    ]
    (folder / "predictions.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    leak = {"level": "accepted", "category": "leak", "what": "1 patients are in both val and test: TCGA-05-A"}
    site = {"level": "note", "category": "site-overlap", "what": "6 of 6 test patients come from 1 sites: SITE-05"}
    findings = [leak | {"names": ["TCGA-05-A"]}, site | {"names": ["SITE-05"]}]
    (folder / "audit.json").write_text(json.dumps({"findings": findings, "accepted": ["leak:TCGA-05-A"]}))
    (folder / "config.yaml").write_text("stores: /data/alice/stores\naccept:\n- leak:TCGA-05-A\n")
    run(EvaluateConfig(predictions=folder / "predictions.csv", out=folder / "out", pseudonyms=folder.parent / "key"))
    out = folder / "out"
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def split(line) -> list[str]:
    return line.split(",")


def test_under_pseudonyms_no_file_names_a_patient_a_slide_or_a_site(subtyping_csv, survival_csv, tmp_path):
    names = None
    for path in (subtyping_csv, survival_csv):
        written = named_run(tmp_path / f"run-{path.stem}", path)
        names = names or Pseudonyms.read(tmp_path / "key")
        for name, content in written.items():
            assert b"TCGA" not in content + name.encode(), name
            assert b"SITE" not in content, name
            assert b"/data/alice" not in content, name
        for name in ("report.html", "report.md"):
            assert f"leak:{names.of('TCGA-05-A')}".encode() in written[name]
            assert names.of("SITE-05").encode() in written[name]
            assert b"stores: stores" in written[name]
