"""Settings on disk, by what a user can get wrong, and the files that we ship."""

from pathlib import Path

import pytest

from longvit.config import VERBS, DemoConfig, FinetuneConfig, TileConfig
from longvit.settings import load_yaml, reference_yaml, to_yaml
from preprocessing.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize(
    ("content", "sentence", "where"),
    [
        (b"patiens: 3", "there is no setting patiens; did you mean patients?", ""),
        (b"patients: many", "patients should be a valid integer, got 'many'", ""),
        (b"patients: 0", "patients should be greater than 0, got 0", ""),
        (b"out: [", "the settings file is not YAML", ", line 1"),
        (b"out: a\nseed: b: c", "the settings file is not YAML", ", line 2, column 8"),
        (b"\xff\xfe\x00", "the settings file is not YAML", ""),
        (b"- 1\n- 2", "the settings file holds no names with values", ""),
        (b"demo", "the settings file holds no names with values", ""),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence_with_its_place(tmp_path, content, sentence, where):
    path = tmp_path / "demo.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_yaml(path, DemoConfig)
    assert error.value.what.startswith(sentence)
    assert str(error.value.where).startswith(f"{path}{where}")
    assert "pydantic" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the settings file does not exist") as error:
        load_yaml(tmp_path / "none.yaml", DemoConfig)
    assert error.value.where == tmp_path / "none.yaml"


def test_a_required_setting_that_is_missing_is_named(tmp_path):
    (tmp_path / "tile.yaml").write_text("out: stores\n")
    with pytest.raises(ConfigError, match=r"^slides is missing"):
        load_yaml(tmp_path / "tile.yaml", TileConfig)


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(stores="s", table="t", splits="p", out="o", task={"kind": "cox"}, folds=(0, 2)),
        FinetuneConfig(
            stores="ü", table="t: #", splits="p", out="o", task={"kind": "subtype", "classes": ("no", "1e3")}
        ),
        TileConfig(slides="s", out="o", mpp_if_missing=0.25, tissue={"mask_um": 4}),
    ],
)
def test_a_config_survives_being_written_and_read(config, tmp_path):
    (tmp_path / "a.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_yaml(tmp_path / "a.yaml", type(config)) == config


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_asks_for_what_is_required_and_for_nothing_else(verb):
    lines = reference_yaml(VERBS[verb]).splitlines()
    asked = {line.removesuffix(": REQUIRED") for line in lines if line.endswith(": REQUIRED")}
    assert asked == {name for name, field in VERBS[verb].model_fields.items() if field.is_required()}


def test_configs_are_shipped():
    assert {path.split("/")[0] for path in SHIPPED} >= {"reference", "tiny"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_can_be_read_by_the_verb_that_its_name_begins_with(name):
    verb = Path(name).stem.split("_")[0]
    assert isinstance(load_yaml(CONFIGS / name, VERBS[verb]), VERBS[verb])
