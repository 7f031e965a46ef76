"""YAML <-> config classes."""

import pytest
import yaml
from pydantic import Field

from longvit.config import DemoConfig, FinetuneConfig
from longvit.config.yaml_files import load_yaml, reference_yaml
from preprocessing.config import StageConfig, TileConfig
from preprocessing.errors import ConfigError


class Group(StageConfig):
    """A group."""

    deep: int = 1
    """Deep."""


class Sample(StageConfig):
    """A sample."""

    needed: str
    """What has to be given."""
    several: tuple[int, ...] = (1, 2)
    """A sentence that goes over
    two lines."""
    group: Group = Group(deep=5)
    """A group of settings."""
    made: list[int] = Field(default_factory=list)
    """What is made anew."""


def test_the_reference_holds_every_value_under_its_sentence():
    assert reference_yaml(Sample) == (
        "# A sample.\n"
        "# What has to be given.\nneeded: REQUIRED\n"
        "# A sentence that goes over\n# two lines.\nseveral: [1, 2]\n"
        "# A group of settings.\ngroup:\n  # Deep.\n  deep: 5\n"
        "# What is made anew.\nmade: []\n"
    )


@pytest.mark.parametrize("kind", [Sample, TileConfig, FinetuneConfig, DemoConfig])
def test_the_reference_is_the_default_config(kind):
    values = yaml.safe_load(reference_yaml(kind))
    needed = {name: "REQUIRED" for name, field in kind.model_fields.items() if field.is_required()}
    assert kind.model_validate(values) == kind(**needed)


def test_an_empty_file_is_the_default_config(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("# nothing\n")
    assert load_yaml(path, DemoConfig) == DemoConfig()


def test_every_problem_of_a_file_is_named_at_once(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("out: x\nmppp: 1\ntile_px: 33\ntissue: {mask_um: much}\njpeg_subsampling: 440\n")
    with pytest.raises(ConfigError) as error:
        load_yaml(path, TileConfig)
    what = error.value.what
    assert "slides is missing" in what
    assert "there is no setting mppp; did you mean mpp?" in what
    assert "tile_px should be a multiple of 32, got 33" in what
    assert "tissue.mask_um should be a valid number, got 'much'" in what
    assert "jpeg_subsampling should be '444', '422' or '420', got 440" in what
    assert error.value.where == str(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("task: {label_column: x}", "task.kind should be one of subtype, cox"),
        ("task: {kind: subtype, min_events: 2}", "task.min_events is not a setting if kind is subtype"),
        ("encoder: {input: {kind: pixels, patch: 3}}", "did you mean encoder.input.patch_px?"),
        ("encoder: 3", "encoder should be a group of settings, got 3"),
        ("encoder: {width: 10}", "encoder.width should be a multiple of 4, got 10"),
        ("encoder: {heads: 5}", "encoder: width 384 is not a multiple of heads 5"),
        ("folds: [0, one]", "folds should be a valid integer, got 'one'"),
    ],
)
def test_a_problem_in_a_group_is_named_by_its_place(text, what, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(f"stores: s\ntable: t\nsplits: p\nout: o\n{text}\n")
    with pytest.raises(ConfigError) as error:
        load_yaml(path, FinetuneConfig)
    assert what in error.value.what
    assert ";" not in error.value.what.replace("; did you mean", "")
