"""What a run folder keeps; `tests/pipeline/test_runs.py` says who may go on in one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import longvit.runs.folder
from longvit.config import VERBS, EmbeddingInput, EncodeConfig, EncoderConfig, FinetuneConfig, PixelInput
from longvit.config.yaml_files import to_yaml
from longvit.runs.folder import open_run, provenance, refuse_others, settings_of
from longvit.runs.input_hashes import RecordedInputs, read_inputs
from preprocessing.errors import ConfigError


def test_provenance_says_what_ran_with_what_and_where(monkeypatch):
    monkeypatch.setattr("sys.argv", ["longvit", "pretrain", "--seed", "1"])
    said = json.loads(json.dumps(provenance("pretrain")))
    assert (said["verb"], said["command"]) == ("pretrain", ["longvit", "pretrain", "--seed", "1"])
    assert {"torch", "numpy", "zarr"} <= set(said["libraries"])
    assert all(said["libraries"].values())
    assert said["started"].endswith("+00:00")


def test_the_commit_is_known_in_a_checkout_and_not_said_elsewhere(tmp_path, monkeypatch):
    shutil.copy(__file__, tmp_path)
    monkeypatch.setattr("longvit.runs.folder.__file__", str(tmp_path / "runs.py"))
    assert provenance("tile")["commit"] is None

    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert provenance("tile")["commit"] is None


@pytest.mark.parametrize("file", ["inputs.json", "config.yaml", "run.json"])
def test_a_run_that_ends_while_it_begins_can_be_begun_again(tmp_path, monkeypatch, file):
    """A folder with a run.json but without its inputs was refused for ever."""
    config = EncodeConfig(stores=tmp_path, out=tmp_path / "out", preset="longvit_tiny")
    monkeypatch.setattr(longvit.runs.folder, "to_yaml", ended if file == "config.yaml" else to_yaml)
    monkeypatch.setattr(longvit.runs.folder, "provenance", ended if file == "run.json" else provenance)
    monkeypatch.setattr(RecordedInputs, "save", ended if file == "inputs.json" else RecordedInputs.save)
    begin = lambda: open_run(config, "encode", read_inputs({}, {}), config.out / "a.csv", adds_slides=True)
    with pytest.raises(KeyboardInterrupt), begin() as run:
        run.begin()
    monkeypatch.undo()
    with begin() as run:
        run.begin()
        assert not run.finished


@pytest.mark.parametrize("source", [PixelInput(), PixelInput(stain="macenko"), EmbeddingInput(encoder="e", dim=4)])
def test_a_run_of_an_earlier_version_lacks_settings_that_had_no_effect(source, tmp_path):
    config = FinetuneConfig(
        stores=tmp_path, table=tmp_path / "t", splits=tmp_path, out=tmp_path, encoder=EncoderConfig(input=source)
    )
    now = RecordedInputs(settings=settings_of(config))
    old = json.loads(json.dumps(now.settings))
    del old["optimiser"]["accumulate"], old["stain"], old["min_tissue"]
    old["encoder"]["input"].pop("stain", None)
    old["encoder"]["input"].pop("min_tissue", None)
    earlier = RecordedInputs(settings=old)
    if source == PixelInput(stain="macenko"):
        with pytest.raises(ConfigError, match=r"other settings \(encoder\)"):
            refuse_others(tmp_path, earlier, now, adds_slides=False)
    else:
        assert refuse_others(tmp_path, earlier, now, adds_slides=False) == frozenset()


def ended(*_):
    raise KeyboardInterrupt


def test_two_processes_of_each_verb_in_one_folder_are_described_with_their_tests():
    described = longvit.runs.folder.__doc__
    assert [verb for verb in VERBS if not re.search(rf"\b{verb}\b", described)] == []
    named = dict(re.findall(r"`(tests/[a-z_/]+\.py)`\s\(`(test_\w+)`", described))
    assert len(named) == 3
    for file, test in named.items():
        assert f"def {test}(" in (Path(__file__).parents[2] / file).read_text()
