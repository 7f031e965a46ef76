"""Names in files that people share."""

import os
import stat
from pathlib import Path

import pytest

from longvit.runs.privacy import KEEP_PATHS, Pseudonyms, shareable_command, shareable_path, shareable_values
from preprocessing.errors import ConfigError, OutputError


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "home" / "alice" / "project"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv(KEEP_PATHS, raising=False)
    return folder


@pytest.mark.parametrize("written", ["stores/s.zarr", "{project}/stores/s.zarr", "runs/../stores/s.zarr"])
def test_a_path_in_the_project_is_relative_to_the_file(project, written):
    assert shareable_path(written.format(project=project), "runs/explain/s") == "../../../stores/s.zarr"


@pytest.mark.parametrize(
    ("target", "folder"),
    [
        ("/scratch/bob/s.zarr", "runs/explain"),
        ("../../bob/s.zarr", "runs/explain"),
        ("stores/s.zarr", "/scratch/bob/explain"),  # the way back would name the project's folders
        ("/home/alice/project-b/s.zarr", "."),
    ],
)
def test_a_path_that_leaves_the_project_is_a_name(project, target, folder):
    assert shareable_path(target, folder) == "s.zarr"


def test_the_root_is_no_project(monkeypatch):
    monkeypatch.chdir("/")
    assert shareable_path("/home/alice/s.zarr", "/home/alice/out") == "s.zarr"


def test_full_paths_where_they_are_asked_for(project, monkeypatch):
    monkeypatch.setenv(KEEP_PATHS, "1")
    assert shareable_path("stores/s.zarr", "runs") == str(project / "stores" / "s.zarr")
    assert shareable_command(["/opt/bin/longvit"]) == ["/opt/bin/longvit"]


def test_a_command_keeps_flags_and_loses_folders(project):
    words = ["/home/alice/.venv/bin/longvit", "tile", "--slides=~/slides", "--out", f"{project}/stores", "--mpp", "0.5"]
    words += ["--task.ignore", "a/b", "c=/d", "runs/x"]
    short = ["longvit", "tile", "--slides=slides", "--out", "stores", "--mpp", "0.5"]
    assert shareable_command(words) == [*short, "--task.ignore", "a/b", "c=/d", "runs/x"]


def test_settings_of_any_depth(project):
    values = {"stores": "/data/alice/stores", "n": 3, "deep": [{"table": "../t.csv"}, None], "name": "runs/x"}
    short = {"stores": "stores", "n": 3, "deep": [{"table": "t.csv"}, None], "name": "runs/x"}
    assert shareable_values(values) == short


def test_one_key_gives_one_pseudonym_and_another_key_another(tmp_path):
    first, again = (Pseudonyms.read(tmp_path / "keys" / "a") for _ in range(2))
    other = Pseudonyms.read(tmp_path / "b")
    assert first.of("TCGA-05-4384") == again.of("TCGA-05-4384") != other.of("TCGA-05-4384")
    assert first.of("TCGA-05-4384") != first.of("TCGA-05-4385")
    assert len(first.of("TCGA-05-4384")) == 14
    assert first.of(first.of("a")) == other.of(first.of("a")) == first.of("a")
    assert Pseudonyms.read(None).of("TCGA-05-4384") == "TCGA-05-4384"


def test_the_key_is_its_owners_alone_and_never_shown(tmp_path):
    found = Pseudonyms.read(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert "key" not in repr(found)


def test_what_is_not_a_key_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("case_id,slide_id\n" * 9)
    with pytest.raises(ConfigError, match="not a key"):
        Pseudonyms.read(tmp_path / "table.csv")
    with pytest.raises(ConfigError, match="cannot be read"):
        Pseudonyms.read(tmp_path)
    with pytest.raises(OutputError):
        Pseudonyms.read(tmp_path / "table.csv" / "key")
    assert not os.path.exists(tmp_path / "table.csv" / "key")
