"""What a run folder keeps; `tests/pipeline/test_runs.py` says who may go on in one."""

import json
import shutil
import subprocess

from longvit.runs import provenance


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
