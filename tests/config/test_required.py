import os
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel

from longvit.config.required import ENCODER, STORES, TABLE, RequiredInput, require_inputs
from preprocessing.errors import ConfigError


class Inner(BaseModel):
    """A group of settings."""

    clinical: Annotated[Path | None, RequiredInput("clinical table")] = None
    out: Path = Path("nowhere")


class Settings(BaseModel):
    """Settings with three files and a folder that have to exist, and one that need not."""

    table: Annotated[Path, TABLE]
    stores: Annotated[Path | None, STORES] = None
    others: Annotated[dict[str, Path], RequiredInput("file of predictions", fix="evaluate first")] = {}
    inner: Inner = Inner()
    out: Path = Path("nowhere")


@pytest.fixture
def table(tmp_path) -> Path:
    (tmp_path / "table.csv").touch()
    return tmp_path / "table.csv"


def test_what_exists_and_what_is_written_is_not_asked_for(table, tmp_path):
    (tmp_path / "stores" / "a.zarr").mkdir(parents=True)
    settings = Settings(table=table, stores=tmp_path / "stores", others={"a": table}, inner=Inner(clinical=table))
    require_inputs(settings)
    assert not settings.out.exists()


def test_the_first_missing_file_is_the_error_and_the_others_are_notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {"a": Path("a.csv"), "b": Path("b.csv")}
    with pytest.raises(ConfigError) as error:
        require_inputs(Settings(table="t.csv", others=paths, inner=Inner(clinical="c.csv")))
    assert (error.value.what, error.value.where) == ("the table does not exist", tmp_path / "t.csv")
    assert error.value.fix == "check the path"
    assert error.value.__notes__ == [
        f"the file of predictions does not exist: {tmp_path / 'a.csv'}",
        f"the file of predictions does not exist: {tmp_path / 'b.csv'}",
        f"the clinical table does not exist: {tmp_path / 'c.csv'}",
    ]


@pytest.mark.parametrize(
    ("form", "kind", "sentence"),
    [
        ("file", "file", None),
        ("file", "folder", "the thing is a folder, not a file"),
        ("folder", "file", "the thing is a file, not a folder"),
        ("folder", "folder", None),
        ("either", "file", None),
        ("either", "folder", None),
        ("file", "pipe", "the thing is a device or a pipe, not a file"),
        ("folder", "pipe", "the thing is a device or a pipe, not a folder"),
        ("file", "below a file", "the thing does not exist"),
        ("folder", "loop", "the thing cannot be read: Too many levels of symbolic links"),
        ("file", "long name", "the thing cannot be read: File name too long"),
    ],
)
def test_a_path_has_the_form_that_is_needed(tmp_path, form, kind, sentence):
    path = tmp_path / ("x" * 300 if kind == "long name" else "x")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind != "long name":
        path.touch()
    assert RequiredInput("thing", form).problem(path / "y" if kind == "below a file" else path) == sentence


def test_a_folder_holds_at_least_one_of_the_files(tmp_path):
    assert STORES.problem(tmp_path) == "there are no stores"
    (tmp_path / "a.csv").touch()
    assert STORES.problem(tmp_path) == "there are no stores"
    (tmp_path / "a.zarr").mkdir()
    assert STORES.problem(tmp_path) is None
    assert ENCODER.problem(tmp_path) == "the checkpoint does not exist"
    (tmp_path / "encoder.safetensors").touch()
    assert ENCODER.problem(tmp_path) is ENCODER.problem(tmp_path / "encoder.safetensors") is None


def test_the_fix_is_that_of_the_missing_input(table, tmp_path):
    with pytest.raises(ConfigError) as error:
        require_inputs(Settings(table=table, stores=tmp_path))
    assert "longvit tile" in error.value.fix
    with pytest.raises(ConfigError, match="the file of predictions does not exist") as error:
        require_inputs(Settings(table=table, others={"a": tmp_path / "no"}))
    assert error.value.fix == "evaluate first"
