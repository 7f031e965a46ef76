"""The command line and the settings file that it names, when nothing is wrong with them."""

import signal

import pytest

import longvit.cli
from longvit.cli import run_command
from longvit.config import VERBS
from preprocessing.report import TileReport
from preprocessing.signals import Stopped


@pytest.fixture
def tiled(monkeypatch, tmp_path):
    """The configs that `tile` was called with; nothing is tiled."""
    seen = []

    def run(config):
        seen.append(config)
        return TileReport(tmp_path, [])

    monkeypatch.setattr("preprocessing.tile.run", run)
    return seen


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("slides: slides\nout: out\nmpp: 1.0\ntissue: {mask_um: 4.0, reject_pen: false}\n")
    return path


@pytest.mark.parametrize("order", ["first", "last", "joined"])
def test_a_flag_overrides_the_file_wherever_the_file_is_named(order, file, tiled):
    argv = {
        "first": ["tile", "--config", str(file), "--mpp", "0.25"],
        "last": ["tile", "--mpp", "0.25", "--config", str(file)],
        "joined": ["tile", f"--config={file}", "--mpp=0.25"],
    }[order]
    assert run_command(argv) == 0
    (config,) = tiled
    assert (config.mpp, str(config.slides), config.tile_px) == (0.25, "slides", 256)


def test_a_flag_of_a_group_leaves_the_rest_of_the_group_to_the_file(file, tiled):
    run_command(["tile", "--config", str(file), "--tissue.mask-um", "6"])
    (config,) = tiled
    assert (config.tissue.mask_um, config.tissue.reject_pen, config.tissue.reject_blur) == (6.0, False, True)


def test_one_request_does_not_see_the_file_of_the_last(file, tiled):
    run_command(["tile", "--config", str(file)])
    run_command(["tile", "--slides", "a", "--out", "b"])
    assert [config.mpp for config in tiled] == [1.0, 0.5]


def test_lists_are_given_as_words_after_their_flag(monkeypatch):
    seen = []
    monkeypatch.setattr("longvit.finetuning.run.run", seen.append)
    paths = ["--stores", "s", "--table", "t", "--splits", "p", "--out", "o"]
    run_command(["finetune", "--folds", "0", "2", "--encoder.segment-lengths", "8", "16", "32", "64", "128", *paths])
    (config,) = seen
    assert config.folds == (0, 2)
    assert config.encoder.segment_lengths == (8, 16, 32, 64, 128)


def test_help_lists_the_verbs_in_the_order_of_the_line(capsys):
    assert run_command(["--help"]) == 0
    said = capsys.readouterr().out
    places = [said.index(f" {verb} ") for verb in VERBS]
    assert places == sorted(places)
    assert "a flag overrides the file" in " ".join(said.split())


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_every_setting(verb, capsys):
    assert run_command([verb, "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())
    for name in VERBS[verb].model_fields:
        assert f"--{name.replace('_', '-')}" in said or f"{name.upper()}--" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_says_that_the_work_is_kept(number, code, monkeypatch, capsys):
    def interrupt(_arguments):
        raise Stopped(number)

    monkeypatch.setattr(longvit.cli, "run_command", interrupt)
    with pytest.raises(SystemExit) as exit_:
        longvit.cli.main()
    assert exit_.value.code == code
    assert "what is done is kept, and the same command goes on from there" in capsys.readouterr().err
