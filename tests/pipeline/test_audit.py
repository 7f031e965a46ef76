"""`longvit split` and `longvit audit` as a user calls them, and what a run keeps of an audit."""

import json
from pathlib import Path

import pandas as pd
import pytest

from longvit.cli.app import run_command
from preprocessing.errors import CohortError


@pytest.fixture
def leaking(line, tmp_path) -> Path:
    """The line's splits, of which the second has a test slide in train."""
    folder = tmp_path / "leaking"
    folder.mkdir()
    for path in line.cohort.splits.iterdir():
        table = pd.read_csv(path, index_col=0)
        if path.name == "splits_1.csv":
            table = pd.concat([table, pd.DataFrame({"train": [table["test"].iloc[0]]})])
        table.to_csv(folder / path.name)
    return folder


def command(verb: str, line, splits: Path | None, *more: object) -> list[str]:
    paths = {"table": line.cohort.dataset} | ({"splits": splits, "stores": line.stores} if splits else {})
    return [verb, *(str(word) for name, path in paths.items() for word in (f"--{name}", path)), *map(str, more)]


def test_splits_are_made_audited_and_trained_on(line, tmp_path, capsys):
    made = tmp_path / "made"
    assert run_command(command("split", line, None, "--out", made, "--folds", 3, "--seed", 1)) == 0
    assert sorted(path.name for path in made.glob("splits_*.csv")) == [f"splits_{k}.csv" for k in range(3)]
    assert run_command(command("audit", line, made)) == 0
    said = capsys.readouterr().out
    assert "train" in said
    assert "verdict: no errors, " in said
    finetune = line.finetune(
        tmp_path / "run",
        "--checkpoint",
        str(line.encoder),
        "--trained-blocks",
        "0",
        "--optimiser.epochs",
        "1",
        splits=made,
    )
    assert run_command(finetune) == 0
    assert json.loads((tmp_path / "run" / "audit.json").read_text())["findings"] == []


def test_an_audit_that_finds_a_leak_says_so_and_exits_with_1(line, leaking, capsys):
    assert run_command(command("audit", line, leaking)) == 1
    said = capsys.readouterr().out
    assert "leak: patients in two parts of a fold" in said
    assert "splits_1.csv: 1 patients are in both train and test: SYN-" in said
    assert "--move-leaks-to train" in said


def test_moved_leaks_are_written_as_splits_that_are_sound(line, leaking, tmp_path):
    corrected = tmp_path / "corrected"
    assert run_command(command("audit", line, leaking, "--move-leaks-to", "train", "--out", corrected)) == 0
    assert run_command(command("audit", line, corrected)) == 0
    (moved,) = json.loads((corrected / "audit.json").read_text())["findings"]
    assert moved["category"] == "moved"
    (patient,) = moved["names"]
    assert pd.read_csv(corrected / "splits_1.csv")["train"].str.startswith(patient).any()
    before = (corrected / "splits_1.csv").read_bytes()
    assert run_command(command("audit", line, leaking, "--move-leaks-to", "train", "--out", corrected)) == 0
    assert (corrected / "splits_1.csv").read_bytes() == before
    with pytest.raises(CohortError, match="the folder contains other splits"):
        run_command(command("audit", line, leaking, "--move-leaks-to", "test", "--out", corrected))


def test_a_run_on_an_accepted_leak_keeps_it_beside_its_predictions(line, leaking, tmp_path):
    quick = ["--checkpoint", str(line.encoder), "--trained-blocks", "0", "--optimiser.epochs", "1", "--folds", "1"]
    finetune = line.finetune(tmp_path / "run", *quick, splits=leaking)
    with pytest.raises(CohortError, match="1 patients are in both train and test"):
        run_command(finetune)
    assert not (tmp_path / "run").exists()
    assert run_command([*finetune, "--accept", "leak"]) == 0
    document = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert document["accepted"] == ["leak"]
    assert [finding["level"] for finding in document["findings"]] == ["accepted"]
    assert (tmp_path / "run" / "predictions.csv").exists()
