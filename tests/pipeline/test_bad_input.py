"""What a user can get wrong: each is refused with what, where and how to mend it, and nothing is left behind."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from longvit.cli.app import main, run_command

TILE = ["tile", "--slides", "slides", "--out", "out"]
PRETRAIN = ["pretrain", "--stores", "stores", "--out", "out"]
FINETUNE = ["finetune", "--stores", "stores", "--table", "t.csv", "--splits", "splits", "--out", "out"]


def text(name: str, content: str, *argv: str) -> Callable:
    """A file in the working folder, and the command line that names it."""

    def prepare(line) -> list[str]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
        return list(argv)

    return prepare


def just(*argv: str) -> Callable:
    return lambda line: list(argv)


SETTINGS = {  # the request, then pieces of what, where and fix
    "unknown verb": (just("tiel"), "no verb tiel; did you mean tile?", "command line", "the verbs are tile, pretrain"),
    "no verb": (just("--workers", "3"), "the first word is not a verb", "command line", "the verbs are tile"),
    "unknown flag": (
        just(*TILE, "--tile-pxx", "3"),
        "--tile-pxx; did you mean --tile-px?",
        "command line",
        "tile --help",
    ),
    "mistyped required flag": (
        just("tile", "--slide", "a", "--out", "out"),
        "no setting --slide; did you mean --slides?",
        "command line",
        "`longvit tile --help`",
    ),
    "nested flag without its group": (
        just(*TILE, "--reject-pen"),
        "did you mean --tissue.reject-pen?",
        "command line",
        "lists every setting",
    ),
    "nothing given": (just("finetune"), "--out, --table, --stores, --splits must be given", "command line", "finetune"),
    "one missing": (just("explain", "--model", "a"), "--stores is missing; --out is missing", "command line", "expl"),
    "flag without value": (just("tile", "--slides"), "--slides has no value", "command line", "`longvit tile --help`"),
    "flag twice": (just(*TILE, "--out", "b"), "--out is given twice", "command line", "tile --help"),
    "word too many": (just(*TILE, "more"), "more belongs to no setting", "command line", "tile --help"),
    "wrong type": (just(*TILE, "--mpp", "fine"), "--mpp should be a valid number, got 'fine'", "command line", "tile"),
    "no yes or no": (just(*TILE, "--overwrite=maybe"), "--overwrite cannot be maybe", "command line", "tile"),
    "out of range": (
        just(*TILE, "--jpeg-quality", "101"),
        "--jpeg-quality should be less than",
        "command line",
        "tile",
    ),
    "not a choice": (
        just("evaluate", "p.csv", "--split", "train"),
        "--split should be 'test' or 'val', got 'train'",
        "command line",
        "evaluate",
    ),
    "settings that contradict each other": (
        just(*PRETRAIN, "--encoder.heads", "5"),
        "width 384 is not a multiple of heads 5",
        "command line",
        "pretrain --help",
    ),
    "setting of another task": (
        just(*FINETUNE, "--task.kind", "cox", "--task.label-column", "x"),
        "--task.label-column is not a setting if kind is cox",
        "command line",
        "finetune --help",
    ),
    "no such task": (
        just(*FINETUNE, "--task.kind", "death"),
        "task.kind should be one of subtype, cox",
        "command line",
        "finetune --help",
    ),
    "settings file missing": (
        just("tile", "--config", "no.yaml"),
        "the settings file does not exist",
        "no.yaml",
        "check the path",
    ),
    "settings file not named": (just("tile", "--config"), "--config has no value", "command line", "name a YAML file"),
    "unknown key": (
        text("a.yaml", "slides: x\nout: out\nmppp: 3\n", "tile", "--config", "a.yaml"),
        "no setting mppp; did you mean mpp?",
        "a.yaml",
        "correct the file",
    ),
    "unknown nested key": (
        text("a.yaml", "tissue: {mask_umm: 3}\n", "tile", "--config=a.yaml", *TILE[1:]),
        "no setting tissue.mask_umm; did you mean tissue.mask_um?",
        "a.yaml",
        "correct the file",
    ),
    "every problem of a file": (
        text("a.yaml", "slides: x\nout: out\nmpp: fine\ntissue: {mask_um: -3}\n", "tile", "--config", "a.yaml"),
        "mpp should be a valid number, got 'fine'; tissue.mask_um should be greater than 0",
        "a.yaml",
        "correct the file",
    ),
    "flag over a good file": (
        text("a.yaml", "slides: x\nout: out\nmpp: 0.5\n", "tile", "--config", "a.yaml", "--mpp", "no"),
        "--mpp should be a valid number, got 'no'",
        "command line",
        "tile --help",
    ),
    "list for a number": (
        text("a.yaml", "slides: x\nout: out\nmpp: [0.5, 1.0]\n", "tile", "--config", "a.yaml"),
        "mpp should be a valid number, got [0.5, 1.0]",
        "a.yaml",
        "correct the file",
    ),
    "word for a list": (
        text("a.yaml", "accept: leak\n", *FINETUNE, "--config", "a.yaml"),
        "accept should be a list, as [a, b], got 'leak'",
        "a.yaml",
        "correct the file",
    ),
    "name twice": (
        text("a.yaml", "slides: x\nmpp: 1\nmpp: 2\n", "tile", "--config", "a.yaml"),
        "mpp is given twice",
        "a.yaml, line 3, column 1",
        "correct the file",
    ),
    "empty path": (just("tile", "--slides", "a", "--out", ""), "out is an empty path", "command line", "tile --help"),
    "endless word": (just(*TILE, "x" * 100_000), "x... belongs to no setting", "command line", "tile --help"),
    "endless flag": (just(*TILE, "--" + "x" * 100_000), "xxx...", "command line", "tile --help"),
    "endless list of faults": (
        text("a.yaml", f"accept: {list(range(1000))}\nfolds: {['x', 'y'] * 500}\n", *FINETUNE, "--config", "a.yaml"),
        "folds should be a valid integer, got 'x'; folds should be a valid integer, got 'y'",
        "a.yaml",
        "correct the file",
    ),
    "endless number": (just(*TILE, "--workers", "9" * 6000), "--workers should be a smaller number", "line", "tile"),
    "not YAML": (
        text("a.yaml", "slides: x\nout: [out\n", "tile", "--config", "a.yaml"),
        "the settings file is not YAML",
        "a.yaml, line 3",
        "correct the file at that place",
    ),
    "YAML of no settings": (
        text("a.yaml", "- 1\n- 2\n", "tile", "--config", "a.yaml"),
        "contains no names with values",
        "a.yaml",
        "`name: value`",
    ),
}


def empty_folder(name: str, *argv: str) -> Callable:
    def prepare(line) -> list[str]:
        Path(name).mkdir()
        return list(argv)

    return prepare


def quick(line) -> list[str]:
    """What makes a run short, should it start against all expectation."""
    return ["--checkpoint", str(line.encoder), "--trained-blocks", "0", "--optimiser.epochs", "1"]


def with_table(change: Callable[[pd.DataFrame], pd.DataFrame], *more: str) -> Callable:
    def prepare(line) -> list[str]:
        change(pd.read_csv(line.cohort.dataset)).to_csv("table.csv", index=False)
        return line.finetune(Path("out"), *quick(line), *more, table=Path("table.csv"))

    return prepare


def with_split(change: Callable[[pd.DataFrame], pd.DataFrame], *more: str) -> Callable:
    """Finetuning on splits of which the second is changed."""

    def prepare(line) -> list[str]:
        Path("splits").mkdir()
        for path in line.cohort.splits.iterdir():
            table = pd.read_csv(path, index_col=0)
            (change(table) if path.name == "splits_1.csv" else table).to_csv(Path("splits") / path.name)
        return line.finetune(Path("out"), *quick(line), *more, splits=Path("splits"))

    return prepare


def leak(split: pd.DataFrame) -> pd.DataFrame:
    """The first test slide trains, too."""
    return pd.concat([split, pd.DataFrame({"train": [split["test"].iloc[0]]})])


def censored(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(censorship=1)


def without_a_store(line) -> list[str]:
    Path("stores").mkdir()
    for store in sorted(line.stores.glob("*.zarr"))[1:]:
        (Path("stores") / store.name).symlink_to(store)
    return line.finetune(Path("out"), *quick(line), stores=Path("stores"))


def with_predictions(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable:
    def prepare(line) -> list[str]:
        change(pd.read_csv(line.root / "survival" / "predictions.csv")).to_csv("p.csv", index=False)
        return ["evaluate", "p.csv", "--out", "out"]

    return prepare


COHORT = {
    "no such slides": (just(*TILE), "the slide, folder or manifest does not exist", "slides", "check the path"),
    "empty folder of slides": (
        empty_folder("slides", *TILE),
        "no file in this folder or below has a slide's ending",
        "slides",
        "give the folder that contains the slides",
    ),
    "manifest without a column": (
        text("m.csv", "slide_id,file\na,a.svs\n", "tile", "--slides", "m.csv", "--out", "out"),
        "the manifest has no column path, it has slide_id, file",
        "m.csv",
        "add the columns slide_id and path",
    ),
    "folder without stores": (empty_folder("stores", *PRETRAIN), "there are no stores", "stores", "longvit tile"),
    "no folder of stores": (just(*PRETRAIN), "the folder of stores does not exist", "stores", "longvit tile"),
    "no table": (just(*FINETUNE), "the table does not exist", "t.csv", "check the path"),
    "table without a column": (
        with_table(lambda t: t.drop(columns="oncotree_code")),
        "the table has no known column of the label",
        "table.csv, columns: case_id, slide_id",
        "name it with task.label_column",
    ),
    "table without a value": (
        with_table(lambda t: t.assign(survival_months=t["survival_months"].where(t.index != 3)), "--task.kind", "cox"),
        "1 of 15 patients with slides have no survival_months and censorship: SYN-0002",
        "table.csv, line 5",
        "or leave these patients out with --task.missing leave-out",
    ),
    "patient of two classes": (
        with_table(lambda t: t.assign(case_id="SYN-0000")),
        "contradict each other in oncotree_code: SYN-0000",
        "table.csv",
        "the same values",
    ),
    "patient in two parts": (
        with_split(leak),
        "1 patients are in both train and test",
        "splits_1.csv",
        "put all slides of a patient into one part",
    ),
    "slide that the table has not": (
        with_split(lambda s: s.replace(s["val"].iloc[0], "SYN-9999")),
        "names 1 slides or cases that the table does not contain: SYN-9999",
        "splits_1.csv",
        "the table these splits were made from",
    ),
    "fold without training patients": (
        with_split(lambda s: s.assign(train=None)),
        "no patient of the table is in train",
        "splits_1.csv",
        "use splits made for this table",
    ),
    "fold that is not there": (
        lambda line: line.finetune(Path("out"), *quick(line), "--folds", "0", "7"),
        "there is no splits_7.csv",
        "splits",
        "folds present: 0, 1, 2",
    ),
    "no splits": (
        lambda line: line.finetune(Path("out"), *quick(line), splits=line.cohort.slides),
        "there is no splits_<k>.csv",
        "slides",
        "check the path",
    ),
    "fold without events": (
        with_table(censored, "--task.kind", "cox"),
        "fold 0 has 0 observed events in train, fewer than 2",
        "splits_0.csv",
        "stratified by event",
    ),
    "slide without a store": (
        without_a_store,
        "1 of 18 slides have no store: SYN-0000",
        "stores",
        "tile them with `longvit tile`",
    ),
    "predictions that are not there": (
        just("evaluate", "p.csv", "--out", "out"),
        "the file of predictions does not exist",
        "p.csv",
        "check the path",
    ),
    "predictions without a column": (
        with_predictions(lambda p: p.rename(columns={"risk": "hazard"})),
        "columns are missing: `risk`",
        "p.csv, line 1",
        "then label, p_<class>... or time, event, risk",
    ),
    "predictions of two tasks": (
        with_predictions(lambda p: p.assign(label="A", p_A=0.5, p_B=0.5)),
        "subtyping and survival at once",
        "p.csv, line 1",
        "two tasks are two files",
    ),
    "event that is no event": (
        with_predictions(lambda p: p.assign(event=2)),
        "`event` is neither 0 nor 1: '2'",
        "column event",
        "1 = event observed",
    ),
    "cohort too small for its folds": (
        just("demo", "--out", "out", "--patients", "3"),
        "3 patients are too few for 5 folds",
        "patients",
        "use 10 or more",
    ),
}


def other_shape(source: Callable, name: str, argv: Callable) -> Callable:
    """A checkpoint of which one tensor has lost a row, with its settings as they were."""

    def prepare(line) -> list[str]:
        path = source(line)
        tensors = load_file(path)
        tensors[name] = tensors[name][:-1].contiguous()
        with safe_open(path, "pt") as file:
            save_file(tensors, "other.safetensors", file.metadata())
        return argv(line, "other.safetensors")

    return prepare


def explain(line, model: str, *more: str) -> list[str]:
    store = next(line.stores.glob("*.zarr"))
    return ["explain", "--model", str(model), "--store", str(store), "--out", "out", "--device", "cpu", *more]


def finetune_from(line, checkpoint: str) -> list[str]:
    return line.finetune(Path("out"), "--checkpoint", str(checkpoint))


def no_checkpoint(argv: Callable) -> Callable:
    def prepare(line) -> list[str]:
        Path("weights.pt").write_bytes(b"these are no weights" * 100)
        return argv(line, "weights.pt")

    return prepare


def bare_tensors(argv: Callable) -> Callable:
    def prepare(line) -> list[str]:
        save_file({"weight": torch.zeros(3)}, "bare.safetensors")
        return argv(line, "bare.safetensors")

    return prepare


FILES = {
    "encoder of another shape": (
        other_shape(lambda line: line.encoder, "encoder.layers.0.ffn.fc1.weight", finetune_from),
        "encoder.layers.0.ffn.fc1.weight is (127, 32), expected (128, 32)",
        "other.safetensors",
        "that the weights were trained with",
    ),
    "model of another shape": (
        other_shape(lambda line: line.model("subtype"), "head.linear.weight", explain),
        "the weights do not fit the model: head.linear.weight is (1, 32), expected (2, 32)",
        "other.safetensors",
        "copy the file again",
    ),
    "encoder that is none": (no_checkpoint(finetune_from), "not safetensors", "weights.pt", "pass a file"),
    "model that is none": (no_checkpoint(explain), "not safetensors", "weights.pt", "or copy it again"),
    "encoder without settings": (
        bare_tensors(finetune_from),
        "no encoder config",
        "bare.safetensors",
        "pass an encoder.safetensors",
    ),
    "model without settings": (
        bare_tensors(explain),
        "not a model with a head",
        "bare.safetensors",
        "model.safetensors of `longvit finetune`",
    ),
    "encoder in place of a model": (
        lambda line: explain(line, line.encoder),
        "not a model with a head",
        "encoder.safetensors",
        "model.safetensors of `longvit finetune`",
    ),
    "encoder that is not there": (
        lambda line: finetune_from(line, "no.safetensors"),
        "the checkpoint does not exist",
        "no.safetensors",
        "check the path",
    ),
    "model that is not there": (
        lambda line: explain(line, "no.safetensors"),
        "the model does not exist",
        "no.safetensors",
        "give the folder of a finished `longvit finetune`, or fold_<k>/model.safetensors in it",
    ),
    "class that the model has not": (
        lambda line: explain(line, line.model("subtype"), "--target", "LUAD"),
        "the model has no class LUAD",
        "target",
        "choose from SYNA, SYNS",
    ),
    "class of a survival model": (
        lambda line: explain(line, line.model("survival"), "--target", "SYNA"),
        "the model has no class SYNA",
        "target",
        "leave target out",
    ),
    "store that is not there": (
        lambda line: ["explain", "--model", str(line.model("subtype")), "--store", "no.zarr", "--out", "out"],
        "the store or folder of stores does not exist",
        "no.zarr",
        "longvit tile",
    ),
    "patches that do not divide the tiles": (
        lambda line: line.finetune(Path("out"), "--encoder.input.kind", "pixels", "--encoder.input.patch-px", "48"),
        "patches of 48 pixels do not divide tiles of 128",
        ".zarr",
        "set encoder.input.patch_px to a divisor of the tile side",
    ),
    "batch larger than an epoch": (
        lambda line: ["pretrain", "--stores", str(line.stores), "--out", "out", "--regions-per-slide", "1"],
        "an epoch has 18 regions, fewer than a batch of 64",
        "batch_size",
        "lower batch_size or raise regions_per_slide",
    ),
    "tiling into a file": (
        lambda line: text("out", "", "tile", "--slides", str(line.cohort.slides), "--out", "out")(line),
        "cannot write: File exists",
        "out",
        "choose another --out",
    ),
    "a run in a file": (
        lambda line: text("out", "", *line.finetune(Path("out"), *quick(line)))(line),
        "File exists",
        "out",
        "choose another --out",
    ),
    "pictures in a file": (
        lambda line: text("out", "", *explain(line, line.model("subtype")))(line),
        "File exists",
        "out",
        "choose another --out",
    ),
    "a report in a file": (
        lambda line: text("out", "", "evaluate", str(line.root / "subtype" / "predictions.csv"), "--out", "out")(line),
        "cannot write: File exists",
        "out",
        "choose another --out",
    ),
}
CASES = SETTINGS | COHORT | FILES


@pytest.mark.parametrize(("prepare", "what", "where", "fix"), CASES.values(), ids=CASES)
def test_is_refused_and_leaves_nothing_behind(prepare, what, where, fix, line, tmp_path, listing, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = prepare(line)
    here, there = listing(tmp_path), listing(line.root)
    monkeypatch.setattr(sys, "argv", ["longvit", *argv])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if not line.startswith("  note:  ")]) == 3, said
    for start, piece, words in zip(("error: ", "  where: ", "  fix:   "), (what, where, fix), said, strict=False):
        assert words.startswith(start)
        assert piece in words
    assert listing(tmp_path) == here
    assert listing(line.root) == there


@pytest.mark.parametrize(
    "argv", [["tile", "--slides", "nowhere", "--out", "out"], ["pretrain", "--stores", "nowhere", "--out", "out"]]
)
def test_the_command_itself_exits_with_2_and_shows_no_traceback(argv, tmp_path):
    command = [sys.executable, "-c", "from longvit.cli.app import main; main()", *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert [words.split()[0] for words in done.stderr.splitlines()] == ["error:", "where:", "fix:"]
    assert not any(tmp_path.iterdir())


def test_a_fault_of_ours_shows_its_traceback(monkeypatch, tmp_path):
    def break_down(_config):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("longvit.evaluation.evaluate.run", break_down)
    (tmp_path / "p.csv").touch()
    monkeypatch.setattr(sys, "argv", ["longvit", "evaluate", str(tmp_path / "p.csv")])
    with pytest.raises(ZeroDivisionError):
        main()


def test_a_slide_without_resolution_fails_by_name_with_the_fix(save_slide, tmp_path, capsys):
    save_slide(tmp_path / "slides" / "blank.svs", mpp=None)
    out = tmp_path / "stores"
    assert run_command(["tile", "--slides", str(tmp_path / "slides"), "--out", str(out), "--workers", "1"]) == 1
    (row,) = pd.read_csv(out / "tile_report.csv").to_dict("records")
    assert (row["slide_id"], row["status"]) == ("blank", "failed")
    assert "does not state" in row["reason"]
    assert "manifest" in row["fix"]
    said = capsys.readouterr()
    assert f"failed: blank: {row['reason']}\n  fix:   {row['fix']}" in said.err
    assert "1 slide: 1 failed, 0 done, 0 skipped" in said.out
    assert not list(out.glob("*.zarr"))


def test_a_slide_that_fails_does_not_stop_the_others(save_slide, tmp_path, capsys):
    save_slide(tmp_path / "slides" / "blank.svs", mpp=None)
    save_slide(tmp_path / "slides" / "good.svs")
    out = tmp_path / "stores"
    assert run_command(["tile", "--slides", str(tmp_path / "slides"), "--out", str(out), "--workers", "1"]) == 1
    assert [path.name for path in out.glob("*.zarr")] == ["good.zarr"]
    assert "failed: good" not in capsys.readouterr().err


@pytest.mark.parametrize("how", ["manifest", "flag"])
def test_a_slide_without_resolution_is_tiled_once_somebody_says_it(how, save_slide, tmp_path):
    slide = save_slide(tmp_path / "blank.svs", mpp=None)
    table = tmp_path / "m.csv"
    table.write_text("slide_id,path,mpp\nblank,blank.svs,0.5\n")
    said = {"manifest": [str(table)], "flag": [str(slide), "--mpp-if-missing", "0.5"]}[how]
    assert run_command(["tile", "--out", str(tmp_path / "stores"), "--workers", "1", "--slides", *said]) == 0
    (row,) = pd.read_csv(tmp_path / "stores" / "tile_report.csv").to_dict("records")
    assert row["mpp_source"] == how
