"""Files are whole or absent, temporary names never collide, and a system that refuses is quoted in one sentence."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from longvit.training.callbacks import SafeCheckpoints
from preprocessing.errors import OutputError
from preprocessing.jobs.files import is_plain_name, remove_temporaries, write_whole, written_whole


def test_a_file_is_replaced_whole_and_nothing_is_left_next_to_it(tmp_path):
    path = tmp_path / "new" / "config.yaml"
    for text in ("one", "zwölf"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


def write_half(path, error):
    with written_whole(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file_and_no_other(error, tmp_path):
    path = tmp_path / "table.csv"
    write_whole(path, "old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_have_names_of_their_own(tmp_path):
    path = tmp_path / "last.ckpt"
    with written_whole(path) as one, written_whole(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    path = tmp_path / ("a" * 255)
    write_whole(path, "x")
    assert path.read_text() == "x"


def write_too_long(folder):
    write_whole(folder / ("a" * 256), "x")


def write_into_a_file(folder):
    (folder / "file").touch()
    write_whole(folder / "file" / "x", "x")


def write_over_a_folder(folder):
    (folder / "taken" / "x").mkdir(parents=True)
    write_whole(folder / "taken", "x")


def write_text_without_room(folder):
    write_whole(folder / "x.csv", "x" * 2_000_000)


def write_tensors_without_room(folder):
    with written_whole(folder / "x.safetensors") as temporary:
        save_file({"x": torch.zeros(500_000)}, temporary)


def write_a_checkpoint_without_room(folder):
    SafeCheckpoints().save_checkpoint({"x": torch.zeros(500_000)}, folder / "x.ckpt")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_too_long, "cannot write: File name too long"),
        (write_into_a_file, "cannot write: "),
        (write_over_a_folder, "cannot write: "),
    ],
)
def test_a_refusal_of_the_system_is_one_sentence_with_place_and_fix(write, words, tmp_path):
    with pytest.raises(OutputError) as error:
        write(tmp_path)
    assert words in error.value.what
    assert str(tmp_path) in str(error.value.where)
    assert error.value.fix
    assert not [*tmp_path.rglob("*.partial")]


@pytest.mark.parametrize(
    "write", [write_text_without_room, write_tensors_without_room, write_a_checkpoint_without_room]
)
def test_a_full_disk_is_named_by_every_writer_and_keeps_nothing_half_written(write, small_disk):
    disk, _ = small_disk
    with pytest.raises(OutputError, match="cannot write: No space left on device") as error:
        write(disk)
    assert str(disk) in str(error.value.where)
    assert "make room" in error.value.fix
    assert [*disk.iterdir()] == []


def test_tensors_are_readable_by_everybody_whom_the_umask_admits(tmp_path):
    with written_whole(tmp_path / "x.safetensors") as temporary:
        save_file({"x": torch.zeros(1)}, temporary)
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_of_the_block_itself_stays_what_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "x"):
        1 / 0  # noqa: B018


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    left = tmp_path / "fold_0" / ".0123456789abcdef.partial"
    kept = [tmp_path / "fold_0" / name for name in (".mine.partial", "0123456789abcdef.partial", "last.ckpt")]
    left.parent.mkdir()
    for path in (left, *kept):
        path.touch()
    remove_temporaries(tmp_path)
    assert sorted(left.parent.iterdir()) == sorted(kept)


@given(name=st.text(max_size=20).filter(is_plain_name))
def test_a_plain_name_is_one_part_of_a_path(name):
    assert Path("folder", name).parts == ("folder", name)
    assert name not in (".", "..")


@given(name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.()+=@-]{0,40}", fullmatch=True) | st.sampled_from(["a b", "病例"]))
def test_names_that_people_give_slides_are_plain(name):
    assert is_plain_name(name)


@given(first=st.sampled_from(["", ".", "=", "+", "-", "@", " ", "a/", "a\\", "a:", "\0", "a\n", "a\u202e", "é" * 100]))
def test_what_is_no_name_of_a_file_or_would_be_obeyed_is_not_plain(first):
    assert not is_plain_name(first + "b" if first else "")


@pytest.mark.parametrize("name", ["CON", "nul", "Aux.tif", "COM1", "lpt9.a.b"])
def test_names_of_devices_are_not_plain_on_windows(name, monkeypatch):
    assert is_plain_name(name)
    monkeypatch.setattr(sys, "platform", "win32")
    assert not is_plain_name(name)
    assert is_plain_name(f"{name}-1".replace(".", "_"))
