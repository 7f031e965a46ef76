from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from longvit.config.messages import (
    MAX_SENTENCE,
    MAX_SHOWN,
    all_settings,
    as_flag,
    as_key,
    did_you_mean,
    names_of,
    no_such_setting,
    own_names,
    refused,
)


class Pixels(BaseModel):
    """One kind of input."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["pixels"] = "pixels"
    patch_px: PositiveInt = 32


class Features(BaseModel):
    """Another kind of input."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["features"] = "features"
    dim: PositiveInt = 6


class Settings(BaseModel):
    """Settings of a verb."""

    model_config = ConfigDict(extra="forbid")
    out: str
    sizes: tuple[PositiveInt, ...] = ()
    input: Annotated[Pixels | Features, Field(discriminator="kind")] = Pixels()
    label_map: dict[str, int] = {}

    @model_validator(mode="after")
    def _whole(self) -> "Settings":
        if self.out == "bad":
            raise ValueError("out is bad")
        return self


def said(values: dict) -> str:
    with pytest.raises(ValidationError) as error:
        Settings.model_validate(values)
    found = refused(error.value.errors(), Settings, "mend it", lambda names: (as_key(names), ["a.yaml"]))
    assert (found.where, found.fix) == ("a.yaml", "mend it")
    return found.what


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "out is missing"),
        ({"out": 3}, "out should be a text, got 3"),
        ({"out": "a", "sizes": 3}, "sizes should be a list, as [a, b], got 3"),
        ({"out": "a", "sizes": [1, 0]}, "sizes should be greater than 0, got 0"),
        ({"out": "a", "input": 3}, "input should be a group of settings, got 3"),
        ({"out": "a", "input": {}}, "input.kind should be one of pixels, features"),
        ({"out": "a", "input": {"kind": "x"}}, "input.kind should be one of pixels, features"),
        ({"out": "a", "input": {"kind": "pixels", "patch_px": 0}}, "input.patch_px should be greater than 0, got 0"),
        ({"out": "a", "input": {"kind": "pixels", "dim": 6}}, "input.dim is not a setting if kind is pixels"),
        (
            {"out": "a", "input": {"kind": "pixels", "patchpx": 6}},
            "there is no setting input.patchpx; did you mean input.patch_px?",
        ),
        ({"out": "a", "label_map": []}, "label_map should be names with values, got []"),
        ({"out": "bad"}, "out is bad"),
        ({"out": 1, "sizes": 2}, "out should be a text, got 1; sizes should be a list, as [a, b], got 2"),
    ],
)
def test_each_error_is_a_sentence_about_the_setting_as_it_was_written(values, sentence):
    assert said(values) == sentence


def test_the_same_sentence_is_given_once_and_long_values_are_cut():
    assert said({"out": "a", "sizes": [0] * 50}) == "sizes should be greater than 0, got 0"
    shown = said({"out": ["x" * 10_000]})
    assert shown.startswith("out should be a text, got ['xxx")
    assert len(shown) < MAX_SHOWN + 40
    assert "thousands of digits" in said({"out": 10**5000})
    many = said({"out": "a"} | {f"strange_{i}" + "y" * 500: 1 for i in range(50)})
    assert many.endswith("and 45 more")
    assert len(many) < 6 * (MAX_SENTENCE + 10)


def test_places_are_named_once_each():
    with pytest.raises(ValidationError) as error:
        Settings.model_validate({"sizes": 3, "input": 3})
    places = {"out": ["here"], "sizes": ["there"], "input": ["here", "there"]}
    found = refused(error.value.errors(), Settings, "", lambda names: (as_flag(names), places[names[0]]))
    assert found.where == "here and there"
    assert found.what.startswith("--out is missing; --sizes should")


def test_names_are_written_as_files_and_command_lines_have_them():
    assert as_key(("input", "patch_px")) == "input.patch_px"
    assert as_flag(("input", "patch_px")) == "--input.patch-px"


def test_every_setting_and_every_group_is_listed_also_in_each_kind_of_a_group():
    assert [as_key(names) for names in all_settings(Settings)] == [
        *("out", "sizes", "input", "input.kind", "input.patch_px", "input.kind", "input.dim", "label_map")
    ]
    assert list(own_names(Settings)) == [("label_map",)]


def test_an_error_leads_to_its_setting_without_kinds_and_indices():
    with pytest.raises(ValidationError) as error:
        Settings.model_validate({"out": "a", "sizes": [1, -1], "input": {"kind": "features", "dim": -1}})
    assert [names_of(Settings, problem) for problem in error.value.errors()] == [("sizes",), ("input", "dim")]


def test_only_close_names_are_suggested():
    assert did_you_mean("--slide", ["--slides", "--out"]) == "; did you mean --slides?"
    assert did_you_mean("--colour", ["--slides", "--out"]) == ""
    assert no_such_setting("colour", ["out"]) == "there is no setting colour"
