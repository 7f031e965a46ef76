"""The command line and the settings file that it names, when nothing is wrong with them."""

import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import longvit.cli.app
from longvit.cli.app import run_command
from longvit.config import VERBS, EncoderConfig, ExecutionConfig
from preprocessing.errors import ConfigError
from preprocessing.jobs.signals import StopSignal
from preprocessing.tiling.report import TileReport


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
    assert (config.mpp, config.slides, config.tile_px) == (0.25, (Path("slides"),), 256)


def test_a_flag_of_a_group_leaves_the_rest_of_the_group_to_the_file(file, tiled):
    run_command(["tile", "--config", str(file), "--tissue.mask-um", "6"])
    (config,) = tiled
    assert (config.tissue.mask_um, config.tissue.reject_pen, config.tissue.reject_blur) == (6.0, False, True)


def test_one_request_does_not_see_the_file_of_the_last(file, tiled):
    run_command(["tile", "--config", str(file)])
    run_command(["tile", "--slides", "a", "--out", "b"])
    assert [config.mpp for config in tiled] == [1.0, 0.5]


@pytest.fixture
def finetuned(monkeypatch, tmp_path):
    """A function: more words -> the config that `finetune` was called with; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr("longvit.finetuning.finetune.run", seen.append)
    for folder in ("s/a.zarr", "p"):
        Path(folder).mkdir(parents=True)
    for name in ("t.csv", "p/splits_0.csv"):
        Path(name).touch()

    def run(*words):
        run_command(["finetune", "--stores", "s", "--table", "t.csv", "--splits", "p", "--out", "o", *words])
        return seen[-1]

    return run


@pytest.mark.parametrize("place", ["file", "flag", "flag with =", "both"])
def test_how_to_compute_may_be_given_by_the_names_of_version_0_1(place, finetuned, tmp_path):
    (tmp_path / "old.yaml").write_text("encoder: {recompute: blocks, heads_at_once: 2}\n")
    file = [] if place.startswith("flag") else ["--config", str(tmp_path / "old.yaml")]
    flags = {
        "file": [],
        "flag": ["--encoder.recompute", "blocks", "--encoder.heads-at-once", "2"],
        "flag with =": ["--encoder.recompute=blocks", "--execution.heads_at_once=2"],
        "both": ["--encoder.heads_at_once", "2"],
    }[place]
    config = finetuned(*file, *flags)
    assert config.execution == ExecutionConfig(recompute="blocks", heads_at_once=2)
    assert config.encoder == EncoderConfig()


def test_lists_are_given_as_words_after_their_flag(finetuned):
    config = finetuned("--folds", "0", "2", "--encoder.segment-lengths", "8", "16", "32", "64", "128")
    assert config.folds == (0, 2)
    assert config.encoder.segment_lengths == (8, 16, 32, 64, 128)


def test_names_of_the_users_own_come_from_the_file_as_they_are(finetuned):
    labels = {"Lung_Adeno Ca.": "x", "a.b": "y", "UP": "z", "--q": "w", "": "e", "1": "one"}
    Path("a.yaml").write_text(f"task: {{kind: subtype, label_map: {labels}}}\n")
    assert finetuned("--config", "a.yaml").task.label_map == labels
    more = ("--task.label-map.UP", "q", "--task.label-map.A_b", "r")
    assert finetuned("--config", "a.yaml", *more).task.label_map == labels | {"UP": "q", "A_b": "r"}


def test_a_wrong_value_of_the_file_is_no_matter_if_a_flag_replaces_it(tiled, tmp_path):
    (tmp_path / "a.yaml").write_text("slides: {a: b}\nmpp: [0.5, 1.0]\ntissue: {mask_um: [1]}\n")
    flags = ["--slides", "a", "--out", "b", "--mpp", "1", "--tissue.mask-um", "3"]
    run_command(["tile", "--config", str(tmp_path / "a.yaml"), *flags])
    assert (tiled[0].slides, tiled[0].mpp, tiled[0].tissue.mask_um) == ((Path("a"),), 1.0, 3.0)


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("{missing_words: null}", "task.missing_words should be a list, as [a, b], got None"),
        ("{missing_words: [null]}", "task.missing_words should be a text, got None"),
        ("{label_map: [1]}", "task.label_map should be names with values, got [1]"),
        ("{min_events: null}", "task.min_events should be a valid integer, got None"),
        ("{label_colum: x}", "there is no setting task.label_colum; did you mean task.label_column?"),
    ],
)
@pytest.mark.parametrize(
    "flags", [(), ("--task.kind", "cox"), ("--task.kind", "none"), ("--task.missing", "leave-out")]
)
def test_a_group_whose_kind_the_file_leaves_to_a_flag_has_only_values_that_some_kind_takes(
    finetuned, task, sentence, flags
):
    Path("a.yaml").write_text(f"task: {task}\n")
    with pytest.raises(ConfigError) as error:
        finetuned("--config", "a.yaml", *flags)
    assert (error.value.what, error.value.where) == (sentence, "a.yaml")


def test_a_flag_gives_the_kind_of_a_group_and_replaces_wrong_values_in_it(finetuned):
    Path("a.yaml").write_text("task: {min_events: 3, missing_words: null}\n")
    task = finetuned("--config", "a.yaml", "--task.kind", "cox", "--task.missing-words", "x").task
    assert (task.kind, task.min_events, task.missing_words) == ("cox", 3, ("x",))


def test_more_processes_than_a_machine_has_are_refused_before_any_is_started(finetuned, monkeypatch):
    monkeypatch.setattr("longvit.cli.app.launch", lambda *_: pytest.fail("a process is started"))
    with pytest.raises(ConfigError, match="devices should be less than or equal to 1024, got "):
        finetuned("--devices", str(2**64))
    Path("a.yaml").write_text("execution: {timeout_s: 18446744073709551616}\n")
    with pytest.raises(ConfigError, match="timeout_s should be less than or equal to 604800"):
        finetuned("--config", "a.yaml")


def test_inputs_that_are_not_there_are_named_all_at_once_with_the_place_looked_at(finetuned, tmp_path):
    Path("t.csv").unlink()
    Path("s/a.zarr").rmdir()
    with pytest.raises(ConfigError) as error:
        finetuned("--checkpoint", "~/none.safetensors")
    told = str(error.value)
    for piece in (
        f"the table does not exist\n  where: {tmp_path / 't.csv'}\n",
        f"note:  there are no stores: {tmp_path / 's'}",
        f"note:  the checkpoint does not exist: {Path.home() / 'none.safetensors'}",
    ):
        assert piece in told


@pytest.mark.parametrize(
    "words",
    [
        "pretrain --stores none --out o",
        "pretrain --stores . --out o --patients none",
        "pretrain --stores . --out o --probe.table none",
        "finetune --stores none --table none --splits none --out o",
        "predict --run none --stores none --out o",
        "encode --stores none --out o",
        "explain --model none --store none --out o",
        "evaluate none",
        "view none",
        "split --table none --out o",
        "audit --table none --splits none",
        "demo --cohort none",
    ],
)
def test_a_wrong_path_is_an_error_before_torch_is_loaded(words, tmp_path):
    script = (
        "import sys\nfrom longvit.cli.app import run_command\nfrom preprocessing.errors import PipelineError\n"
        "try:\n    run_command(sys.argv[1:])\n"
        "except PipelineError as error:\n    print(error.what, error.where, 'torch' in sys.modules)\n"
    )
    (tmp_path / "a.zarr").mkdir()
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", script, *words.split()]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "does not exist" in told
    assert told.endswith(f"{tmp_path / 'none'} False\n")
    assert end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime < 3


def test_an_argument_that_is_not_utf8_is_refused():
    with pytest.raises(ConfigError, match="is not UTF-8"):
        run_command(["tile", "--slides", "a\udcff", "--out", "b"])


def test_help_lists_the_verbs_in_the_order_of_the_line(capsys):
    assert run_command(["--help"]) == 0
    said = capsys.readouterr().out
    places = [said.index(f" {verb} ") for verb in VERBS]
    assert places == sorted(places)
    assert "a flag overrides the file" in " ".join(said.split())


def test_help_lists_the_exit_codes_of_the_readme(capsys):
    run_command(["--help"])
    said = " ".join(capsys.readouterr().out.split()).partition("Exit codes: ")[2]
    readme = (Path(longvit.cli.app.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = readme.partition("| exit code | meaning |")[2].partition("\n\n")[0]
    codes = re.findall(r"^\| ([0-9, ]+) \|", rows, re.MULTILINE)
    assert re.findall("[0-9]+", said) == re.findall("[0-9]+", " ".join(codes)) == ["0", "1", "2", "130", "143", "141"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_every_setting(verb, capsys):
    assert run_command([verb, "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())
    for name in VERBS[verb].model_fields:
        assert f"--{name.replace('_', '-')}" in said or f"{name.upper()}--" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_says_that_the_work_is_kept(number, code, monkeypatch, capsys):
    def interrupt(_arguments):
        raise StopSignal(number)

    monkeypatch.setattr(longvit.cli.app, "run_command", interrupt)
    with pytest.raises(SystemExit) as exit_:
        longvit.cli.app.main()
    assert exit_.value.code == code
    assert "finished work is kept, and the same command resumes from there" in capsys.readouterr().err
