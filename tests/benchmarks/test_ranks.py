"""Figures of `ranks.py`: the bytes of two ranks are those of the formula, and their memory is within 15 %."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("options", [(), ("--training",)])
def test_two_ranks_take_what_is_predicted(options):
    command = [sys.executable, "tests/benchmarks/ranks.py", "--ranks", "2", "--tokens", "131071", "--depth", "1"]
    result = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["tokens"] for row in rows] == [65535, 65536]
    for row in rows:
        assert row["bytes"] == row["bytes_predicted"] > 0
        assert row["memory"] == pytest.approx(row["memory_predicted"], rel=0.15)


def test_the_page_shows_what_the_model_of_cost_predicts():
    command = [sys.executable, "tests/benchmarks/ranks_predicted.py"]
    rows = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    ).stdout.splitlines()
    page = (ROOT / "longvit" / "model" / "attention" / "parallel.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 11
    assert [row for row in rows if row and row not in page] == []
