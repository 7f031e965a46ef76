"""The folder of a run: what it keeps, and who may go on in it."""

import json

import pytest

from longvit.config import ExecutionConfig, PretrainConfig
from longvit.config.yaml_files import load_yaml
from longvit.runs.folder import INPUTS, open_run
from longvit.runs.input_hashes import RecordedInputs, read_inputs
from preprocessing.errors import BusyError, ConfigError


@pytest.fixture
def config(tmp_path) -> PretrainConfig:
    return PretrainConfig(stores=tmp_path / "stores", out=tmp_path / "run")


def start(config: PretrainConfig, verb: str = "pretrain", **files) -> bool:
    """Open the run's folder; return whether the run is finished."""
    with open_run(config, verb, read_inputs(files), config.out / "encoder.safetensors") as run:
        return run.finished


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
    assert start(config)
    assert listing(config.out) == before


def test_a_run_may_go_on_elsewhere_and_on_another_device(config, tmp_path):
    start(config)
    moved = tmp_path / "moved"
    config.out.rename(moved)
    start(config.model_copy(update={"out": moved, "device": "cpu", "loader_workers": 0}))
    assert len(json.loads((moved / "run.json").read_text())) == 2


def test_a_run_may_go_on_with_another_execution(config):
    start(config)
    start(config.model_copy(update={"execution": ExecutionConfig(recompute="blocks", heads_at_once=1)}))
    assert "execution" not in RecordedInputs.read(config.out / INPUTS).settings
    assert len(starts(config)) == 2


def test_a_run_of_version_0_1_goes_on_whatever_its_execution_was(config):
    start(config)
    record = json.loads((config.out / INPUTS).read_text())
    record["settings"]["encoder"] |= {"recompute": "blocks", "heads_at_once": 2, "tokens_at_once": 4096}
    (config.out / INPUTS).write_text(json.dumps(record))
    start(config)
    record["settings"]["encoder"] |= {"depth": 3}
    (config.out / INPUTS).write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"other settings \(encoder\)"):
        start(config)


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 8}, {"precision": "bf16"}])
def test_other_settings_are_refused_and_named(config, change, listing):
    start(config)
    before = listing(config.out)
    with pytest.raises(ConfigError, match=next(iter(change))):
        start(config.model_copy(update=change))
    assert listing(config.out) == before


def test_changed_files_are_refused_with_their_names_and_the_time_of_the_record(config, tmp_path, listing):
    table, other = tmp_path / "table.csv", tmp_path / "other.csv"
    table.write_text("one")
    other.write_text("two")
    start(config, table=table)
    before = listing(config.out)
    since = RecordedInputs.read(config.out / INPUTS).recorded
    assert since.endswith(" UTC")
    for files, sentence in (
        ({"table": other}, f"since {since}: table other.csv is new; table table.csv is no longer given"),
        ({"table": table, "clinical": other}, "clinical other.csv is new"),
        ({}, "table table.csv is no longer given"),
    ):
        with pytest.raises(ConfigError, match=sentence) as error:
            start(config, **files)
        assert "--overwrite" in error.value.fix
    table.write_text("another")
    with pytest.raises(ConfigError, match=r"table table\.csv has changed"):
        start(config, table=table)
    assert listing(config.out) == before


def test_a_moved_table_with_the_same_content_is_the_same(config, tmp_path):
    (tmp_path / "table.csv").write_text("one")
    start(config, table=tmp_path / "table.csv")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "table.csv").rename(tmp_path / "elsewhere" / "table.csv")
    start(config, table=tmp_path / "elsewhere" / "table.csv")
    assert len(starts(config)) == 2


def test_overwriting_keeps_nothing_of_the_old_result_and_everything_of_others(config, tmp_path):
    start(config)
    for name in ("encoder.safetensors", "checkpoints/last.ckpt", "tensorboard/events", "metrics.csv", "mine.txt"):
        (config.out / name).parent.mkdir(exist_ok=True)
        (config.out / name).touch()
    assert not start(config.model_copy(update={"overwrite": True, "seed": 1}))
    assert sorted(path.name for path in config.out.iterdir()) == ["config.yaml", INPUTS, "mine.txt", "run.json"]
    assert len(starts(config)) == 1
    assert not start(config.model_copy(update={"seed": 1}))


def test_the_folder_of_another_verb_is_refused_even_with_overwrite(config):
    start(config)
    with pytest.raises(ConfigError, match="this folder holds a run of `longvit pretrain`"):
        start(config.model_copy(update={"overwrite": True}), verb="encode")


def test_a_run_that_has_not_recorded_its_inputs_is_refused(config):
    start(config)
    (config.out / INPUTS).unlink()
    with pytest.raises(ConfigError, match="has not recorded its inputs"):
        start(config)
    assert not start(config.model_copy(update={"overwrite": True}))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"stores": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_named(config, damage):
    start(config)
    (config.out / INPUTS).write_bytes(damage)
    with pytest.raises(ConfigError, match="the record of the run's inputs is damaged") as error:
        start(config)
    assert error.value.where == config.out / INPUTS


def test_a_second_run_in_the_same_folder_is_refused_by_name_while_the_first_works(config):
    with open_run(config, "pretrain", RecordedInputs(), config.out / "encoder.safetensors"):
        with pytest.raises(BusyError, match="another process is writing here") as error:
            start(config)
        assert error.value.where == config.out
    start(config)
    assert not (config.out / ".lock").exists()


def test_temporary_files_that_a_killed_run_left_are_removed(config):
    start(config)
    left = config.out / "checkpoints" / ".0123456789abcdef.partial"
    left.parent.mkdir()
    left.touch()
    start(config)
    assert not left.exists()
