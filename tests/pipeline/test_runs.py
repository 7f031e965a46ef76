"""The folder of a run: what it keeps, and who may go on in it."""

import json

import pytest

from longvit.config import PretrainConfig
from longvit.runs import open_run
from longvit.settings import load_yaml
from preprocessing.errors import ConfigError


@pytest.fixture
def config(tmp_path) -> PretrainConfig:
    return PretrainConfig(stores=tmp_path / "stores", out=tmp_path / "run")


def start(config: PretrainConfig) -> None:
    open_run(config, "pretrain", config.out / "encoder.safetensors")


def starts(config: PretrainConfig) -> list[dict]:
    return json.loads((config.out / "run.json").read_text())


def test_the_config_of_a_run_can_be_read_back(config):
    start(config)
    assert load_yaml(config.out / "config.yaml", PretrainConfig) == config


def test_every_start_that_does_work_is_written_down(config):
    start(config)
    start(config)
    assert [one["verb"] for one in starts(config)] == ["pretrain", "pretrain"]
    assert starts(config)[0]["libraries"]["torch"]


def test_a_start_after_the_result_is_there_changes_nothing(config, listing):
    start(config)
    (config.out / "encoder.safetensors").touch()
    before = listing(config.out)
    start(config)
    assert listing(config.out) == before


def test_a_run_may_go_on_elsewhere_and_on_another_device(config, tmp_path):
    start(config)
    moved = tmp_path / "moved"
    config.out.rename(moved)
    start(config.model_copy(update={"out": moved, "device": "cpu", "loader_workers": 0}))
    assert len(json.loads((moved / "run.json").read_text())) == 2


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 8}, {"precision": "bf16"}])
def test_other_settings_are_refused_and_named(config, change, listing):
    start(config)
    before = listing(config.out)
    with pytest.raises(ConfigError, match=next(iter(change))):
        start(config.model_copy(update=change))
    assert listing(config.out) == before
