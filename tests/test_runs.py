"""What a run folder keeps; `tests/pipeline/test_runs.py` says who may go on in one."""

import json
import shutil
import subprocess

import pytest

from longvit.runs import provenance, write_atomically


def test_a_text_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "config.yaml"
    for text in ("one", "zwölf"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "config.yaml"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"


def test_provenance_says_what_ran_with_what_and_where(monkeypatch):
    monkeypatch.setattr("sys.argv", ["longvit", "pretrain", "--seed", "1"])
    said = json.loads(json.dumps(provenance("pretrain")))
    assert (said["verb"], said["command"]) == ("pretrain", ["longvit", "pretrain", "--seed", "1"])
    assert {"torch", "numpy", "zarr"} <= set(said["libraries"])
    assert all(said["libraries"].values())
    assert said["started"].endswith("+00:00")


def test_the_commit_is_known_in_a_checkout_and_not_said_elsewhere(tmp_path, monkeypatch):
    shutil.copy(__file__, tmp_path)
    monkeypatch.setattr("longvit.runs.__file__", str(tmp_path / "runs.py"))
    assert provenance("tile")["commit"] is None

    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert provenance("tile")["commit"] is None
