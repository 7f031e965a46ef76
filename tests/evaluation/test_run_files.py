import pytest

from longvit.config import EvaluateConfig
from longvit.evaluation.evaluate import run
from longvit.evaluation.run_files import read_notes, selected_epoch, site_probes, training_settings
from longvit.formats.audit_json import MAX_BYTES
from longvit.formats.metrics_json import read_metrics
from longvit.formats.site_probe_json import Probed, SiteProbe, write_site_probe
from preprocessing.errors import PipelineError

DAMAGED = [
    ("audit.json", b"\xff\xfe\x00", "it is not UTF-8"),
    ("audit.json", b"[" * 100_000, "the audit cannot be read"),
    ("audit.json", b'{"findings": [{"level": 3}]}', "the audit cannot be read"),
    ("audit.json", b" " * (MAX_BYTES + 1), "more than 5,000,000 bytes"),
    ("config.yaml", b"a: \xff", "it is not UTF-8"),
    ("config.yaml", b"a: [b\n", "the settings file is not YAML"),
    ("config.yaml", b"[" * 50_000, "nested more than"),
    ("config.yaml", b"- a\n", "contains no names with values"),
    ("config.yaml", b"#" * 300_000, "more than 262,144 bytes"),
    ("baselines/mean/notes.txt", b"\xff", "it is not UTF-8"),
    ("baselines/mean/notes.txt", b"x\n" * 200_000, "more than 200,000 bytes"),
    ("fold_0/site_probe.json", b"{}", "the probe of hospitals cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "says"), DAMAGED)
def test_a_damaged_file_next_to_the_predictions_is_refused_by_name(survival_csv, tmp_path, name, content, says):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    if name.startswith("baselines"):
        (tmp_path / "baselines" / "mean" / "predictions.csv").write_bytes(survival_csv.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=says) as refused:
        run(EvaluateConfig(predictions=survival_csv, out=tmp_path / "out"))
    assert str(tmp_path / name) in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_absent_files_are_none(survival_csv):
    assert (training_settings(survival_csv), read_notes(survival_csv)) == (None, [])
    assert site_probes(survival_csv) == {}


def test_probes_of_hospitals_are_read_by_fold_and_repeated_in_metrics_and_report(subtyping_csv, tmp_path):
    probed = Probed(n_classes=2, balanced_accuracy=0.875, chance_error=0.1)
    for fold in (10, 2):
        (tmp_path / f"fold_{fold}").mkdir()
        write_site_probe(tmp_path / f"fold_{fold}", SiteProbe(n_patients=9, site=probed, label=None, reason=None))
    (tmp_path / "fold_x").mkdir()
    (tmp_path / "fold_x" / "site_probe.json").write_text("{}")
    assert list(site_probes(subtyping_csv)) == [2, 10]
    run(EvaluateConfig(predictions=subtyping_csv, out=tmp_path / "out"))
    assert [one.fold for one in read_metrics(tmp_path / "out").site_probe] == [2, 10]
    assert "0.875" in (tmp_path / "out" / "report.md").read_text()
    assert "Hospitals in the representations" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "select"),
    [
        ("seed: 0\nselect: best_val\n", "best_val"),
        ("select: last\npatience: null\n", "last"),
        ("seed: 0\n", None),
        ("nested:\n  select: best_val\n", None),
        ("select: [last]\n", None),
        ("", None),
    ],
)
def test_the_epoch_that_the_run_kept_is_read_from_its_settings(survival_csv, text, select):
    survival_csv.with_name("config.yaml").write_text(text)
    assert selected_epoch(survival_csv) == select
