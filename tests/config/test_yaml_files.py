"""Settings on disk, by what a user can get wrong, and the files that we ship."""

import time
from pathlib import Path

import pytest

from longvit.cli.parsing import Request
from longvit.config import (
    VERBS,
    DemoConfig,
    EncoderConfig,
    EvaluateConfig,
    ExecutionConfig,
    ExplainConfig,
    FinetuneConfig,
    PredictConfig,
    PretrainConfig,
    TileConfig,
)
from longvit.config.yaml_files import load_yaml, read_values, reference_yaml, to_yaml
from preprocessing.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize(
    ("content", "sentence", "where"),
    [
        (b"patiens: 3", "there is no setting patiens; did you mean patients?", ""),
        (b"patients: many", "patients should be a valid integer, got 'many'", ""),
        (b"patients: 0", "patients should be greater than 0, got 0", ""),
        (b"out: [", "the settings file is not YAML", ", line 1"),
        (b"out: a\nseed: b: c", "the settings file is not YAML", ", line 2, column 8"),
        (b"out: a\n\xff\xfe\x00", "the settings file is not YAML: it is not UTF-8", ", line 2, column 1"),
        (b"- 1\n- 2", "the settings file contains no names with values", ""),
        (b"demo", "the settings file contains no names with values", ""),
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


def test_many_faults_are_named_once_each_and_counted(tmp_path):
    path = tmp_path / "explain.yaml"
    path.write_text(f"methods: {[1] * 2000}\n" + "".join(f"strange_{i}: 1\n" for i in range(300)))
    with pytest.raises(ConfigError) as error:
        load_yaml(path, ExplainConfig)
    assert error.value.what.count("methods should be") == 1
    assert error.value.what.endswith(" more")
    assert len(str(error.value)) < 4000


def test_the_older_name_of_stores_is_read(tmp_path):
    path = tmp_path / "explain.yaml"
    path.write_text("model: m\nstore: a.zarr\nout: o\n")
    assert load_yaml(path, ExplainConfig).stores == Path("a.zarr")
    (tmp_path / "a.zarr").mkdir()
    words = ["explain", "--config", str(path), "--store", str(tmp_path / "a.zarr")]
    request = Request.read(words)
    assert request.arguments == ["explain", "--stores", str(tmp_path / "a.zarr")]
    assert request.values["stores"] == "a.zarr"
    path.write_text("model: m\nstore: a.zarr\nstores: b\nout: o\n")
    with pytest.raises(ConfigError, match="there is no setting store; did you mean stores"):
        load_yaml(path, ExplainConfig)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the settings file does not exist") as error:
        load_yaml(tmp_path / "none.yaml", DemoConfig)
    assert error.value.where == tmp_path / "none.yaml"


def test_a_required_setting_that_is_missing_is_named(tmp_path):
    (tmp_path / "tile.yaml").write_text("out: stores\n")
    with pytest.raises(ConfigError, match=r"^slides is missing"):
        load_yaml(tmp_path / "tile.yaml", TileConfig)


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"b{i}: &b{i} [{','.join([f'*b{i - 1}' if i else '*a'] * 10)}]\n" for i in range(8)
)
HOSTILE = {
    "alias bomb": (ALIASES, "more than 10,000 values", "line 1, column 26"),
    "self-reference": ("out: &a [*a]", "nested more than 32 deep", "line 1, column 6"),
    "depth": ("out: " + "[" * 5000, "nested more than 32 deep", "line 1, column 38"),
    "depth in blocks": ("- " * 5000, "nested more than 32 deep", "line 1, column 67"),
    "many values": ("out: [" + "1," * 20_000 + "]", "more than 10,000 values", "line 1, column "),
    "large file": ("#" * 300_000, "more than 262,144 bytes", "a.yaml"),
    "name twice": ("out: a\npatients: 3\nout: b", "out is given twice", "line 3, column 1"),
    "name twice in a group": ("a: {b: 1, b: 2}", "b is given twice", "line 1, column 11"),
    "number as a name": ("out: a\n1: b", "the name 1 is not text", "line 2, column 1"),
    "yes as a name": ("yes: b", "the name yes is not text", "line 1, column 1"),
    "list as a name": ("? [a]\n: b", "the name is not text", "line 1, column 3"),
    "number of 6,000 digits": ("seed: " + "1" * 6000, "more than 20 digits", "line 1, column 7"),
    "number without digits": ("seed: 0x_", "a number cannot be read", "line 1, column 7"),
    "NUL": ('out: "a\\0b"', "a character that is not allowed", "line 1, column 6"),
    "half a character": ('out: "\\ud800"', "a character that is not allowed", "line 1, column 6"),
    "no character": ('out: "\\UFFFFFFFF"', "a character that does not exist", "line 1, column 9"),
    "control character": ("out: a\nb\x01: c", "special characters are not allowed", "line 2, column 2"),
    "Python": ("out: !!python/object:os.system {}", "the tag tag:yaml.org,2002:python", "line 1, column 6"),
    "tag": ("patients: !!float x", "is not supported", "line 1, column 11"),
    "two documents": ("out: a\n--- b", "another document", "line 2, column 1"),
    "tab": ("out: a\tb: c", "cannot start any token", "line 1, column 7"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_yaml_is_refused_at_once_with_line_and_column(case, tmp_path):
    content, sentence, where = HOSTILE[case]
    (tmp_path / "a.yaml").write_text(content)
    start = time.process_time()
    with pytest.raises(ConfigError) as error:
        load_yaml(tmp_path / "a.yaml", DemoConfig)
    assert time.process_time() - start < 10
    assert sentence in error.value.what
    assert where in str(error.value.where)
    assert len(str(error.value)) < 500


def test_dates_and_signs_are_text_and_anchors_may_be_used(tmp_path):
    (tmp_path / "a.yaml").write_text("slides: &here 2023-13-45\nout: *here\nmpp: =\n")
    with pytest.raises(ConfigError, match=r"^mpp should be a valid number, got '='") as error:
        load_yaml(tmp_path / "a.yaml", TileConfig)
    assert error.value.where == str(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(
        "slides: &here 2023-13-45\nout: *here\ntissue: {<<: {mask_um: 3}, reject_pen: no}\n"
    )
    config = load_yaml(tmp_path / "a.yaml", TileConfig)
    assert (config.slides, config.out, config.tissue.mask_um) == ((Path("2023-13-45"),), Path("2023-13-45"), 3)


def test_what_is_not_a_file_is_refused(tmp_path):
    for path, sentence in ((tmp_path, "is a folder, not a file"), (Path("/dev/zero"), "is a device or a pipe")):
        with pytest.raises(ConfigError, match=sentence):
            load_yaml(path, DemoConfig)


def test_labels_that_are_numbers_are_their_text(tmp_path):
    text = "stores: s\ntable: t\nsplits: p\nout: o\ntask: {kind: subtype, classes: [0, 1.5, x], label_map: {'2': 0}}\n"
    (tmp_path / "a.yaml").write_text(text)
    task = load_yaml(tmp_path / "a.yaml", FinetuneConfig).task
    assert (task.classes, task.label_map) == (("0", "1.5", "x"), {"2": "0"})


def test_paths_are_those_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = EvaluateConfig(predictions="~/p.csv", out="~nobody-has-this-name/x", baseline={"a": "~/b.csv"})
    assert config.predictions == tmp_path / "p.csv"
    assert config.baseline == {"a": tmp_path / "b.csv"}
    assert config.out == Path("~nobody-has-this-name/x")
    for path, sentence in (("", "is an empty path"), ("a\0b", "cannot contain NUL"), ("\ud800", "not UTF-8")):
        with pytest.raises(ValueError, match=sentence):
            EvaluateConfig(predictions=path)


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


OLD_NAMES = "stores: s\nout: o\nencoder: {depth: 2, recompute: blocks, heads_at_once: 1}\n"


def test_settings_of_version_0_1_that_say_how_to_compute_are_read_by_their_old_names(tmp_path):
    (tmp_path / "a.yaml").write_text(OLD_NAMES + "execution: {tokens_at_once: 7}\n")
    config = load_yaml(tmp_path / "a.yaml", PretrainConfig)
    assert config.execution == ExecutionConfig(recompute="blocks", heads_at_once=1, tokens_at_once=7)
    assert config.encoder == EncoderConfig(depth=2)
    written = to_yaml(config)
    assert written.index("encoder:") > written.index("recompute:") > written.index("execution:")
    (tmp_path / "a.yaml").write_text(written)
    assert load_yaml(tmp_path / "a.yaml", PretrainConfig) == config


def test_a_setting_by_its_old_and_its_new_name_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text(OLD_NAMES + "execution: {recompute: nothing}\n")
    with pytest.raises(ConfigError) as error:
        load_yaml(tmp_path / "a.yaml", PretrainConfig)
    assert error.value.what == "encoder.recompute is the old name of execution.recompute, and the file gives both"
    assert error.value.where == tmp_path / "a.yaml"


@pytest.mark.parametrize(
    ("encoder", "key", "line"),
    [
        ("\n  depth: 2\n  recompute: bloks", "encoder.recompute", 5),
        (" {depth: 2,\n  recompute: bloks}", "encoder.recompute", 4),
        (" {depth: 2,\n  heads_at_once: 0}", "encoder.heads_at_once", 4),
        ("\n  <<: {tokens_at_once: many}", "encoder.tokens_at_once", 3),
    ],
)
def test_a_wrong_value_is_reported_by_the_old_name_and_line_that_the_user_wrote(tmp_path, encoder, key, line):
    (tmp_path / "a.yaml").write_text(f"stores: s\nout: o\nencoder:{encoder}\n")
    errors = []
    for read in (load_yaml, lambda path, kind: read_values(path, kind, lambda names: False)):
        with pytest.raises(ConfigError, match=f"^{key} should be ") as error:
            read(tmp_path / "a.yaml", PretrainConfig)
        errors.append((error.value.where, "execution" in str(error.value)))
    assert errors == [(f"{tmp_path / 'a.yaml'}, line {line}", False)] * 2


def test_a_wrong_value_is_reported_by_its_new_name_next_to_an_old_name(tmp_path):
    (tmp_path / "a.yaml").write_text(OLD_NAMES + "execution: {tokens_at_once: many}\n")
    with pytest.raises(ConfigError, match=r"^execution\.tokens_at_once should be a valid integer") as error:
        load_yaml(tmp_path / "a.yaml", PretrainConfig)
    assert error.value.where == str(tmp_path / "a.yaml")


@pytest.mark.parametrize(("execution", "shown"), [("", "None"), (" 3", "3"), (" [a]", "['a']")])
def test_a_group_without_settings_is_the_only_error_next_to_old_names(tmp_path, execution, shown):
    (tmp_path / "a.yaml").write_text(OLD_NAMES + f"execution:{execution}\n")
    with pytest.raises(ConfigError) as error:
        load_yaml(tmp_path / "a.yaml", PretrainConfig)
    assert error.value.what == f"execution should be a group of settings, got {shown}"


def test_old_names_are_none_of_a_verb_that_had_none(tmp_path):
    (tmp_path / "a.yaml").write_text("run: r\nstores: s\nout: o\nencoder: {recompute: blocks}\n")
    with pytest.raises(ConfigError, match="there is no setting encoder"):
        load_yaml(tmp_path / "a.yaml", PredictConfig)


def test_configs_are_shipped():
    assert {path.split("/")[0] for path in SHIPPED} >= {"reference", "tiny"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_can_be_read_by_the_verb_that_its_name_begins_with(name):
    verb = Path(name).stem.split("_")[0]
    assert isinstance(load_yaml(CONFIGS / name, VERBS[verb]), VERBS[verb])
