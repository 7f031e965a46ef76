import pytest

from longvit.config import EvaluateConfig
from longvit.evaluation.evaluate import run
from longvit.evaluation.run_files import read_notes, selected_epoch, training_settings
from longvit.formats.audit_json import MAX_BYTES
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
]


@pytest.mark.parametrize(("name", "content", "says"), DAMAGED)
def test_a_damaged_file_next_to_the_predictions_is_refused_by_name(survival_csv, tmp_path, name, content, says):
    if "/" in name:
        (tmp_path / "baselines" / "mean").mkdir(parents=True)
        (tmp_path / "baselines" / "mean" / "predictions.csv").write_bytes(survival_csv.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=says) as refused:
        run(EvaluateConfig(predictions=survival_csv, out=tmp_path / "out"))
    assert str(tmp_path / name) in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_absent_files_are_none(survival_csv):
    assert (training_settings(survival_csv), read_notes(survival_csv)) == (None, [])


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
