"""Verb `demo`: the whole pipeline on a synthetic cohort, through the same functions that a user calls."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

import longvit.evaluation.evaluate as evaluation
import longvit.explanation.explain as explanation
import longvit.finetuning.finetune as finetuning
import longvit.pretraining.pretrain as pretraining
import preprocessing.tile as tiling
from longvit.config import DemoConfig, EvaluateConfig, ExplainConfig, FinetuneConfig, PretrainConfig, TileConfig
from longvit.config.yaml_files import load_yaml
from longvit.evaluation.report.page import summary_table
from longvit.formats.predictions_csv import PREDICTIONS, PROBABILITY, SHUFFLED, read_prediction_rows
from longvit.runs.folder import REPORT
from preprocessing.errors import ConfigError
from preprocessing.jobs.atomic_folder import claimed, locked
from preprocessing.jobs.files import write_whole
from preprocessing.synthetic.cohort import check_size, make_cohort

TASKS = ("subtype", "survival")


def run(config: DemoConfig) -> Path:
    """Run all stages: slides, stores, encoder, models, report, heatmap.

    A second start continues where the first one stopped.

    Returns:
        Path of `report.html`: subtyping and survival on held-out patients, next to controls with shuffled labels.
    """
    out, settings = config.out, settings_folder(config)
    if config.cohort is None:
        check_size(config.patients)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", out):
        return _run(config, Console(), out, settings)


def _run(config: DemoConfig, console: Console, out: Path, settings: Path) -> Path:
    cohort = config.cohort
    if cohort is None:
        with stage(console, "cohort: slides with planted subtype and hazard"):
            cohort = _make_cohort(config, console)
    with stage(console, "tile: slides -> stores"):
        tile = load_yaml(settings / "tile.yaml", TileConfig)
        tiling.run(tile.model_copy(update={"slides": cohort / "slides", "out": out / "stores"}))
    pretrain = load_yaml(settings / "pretrain.yaml", PretrainConfig)
    with stage(console, f"pretrain: stores -> encoder ({pretrain.objective.kind}, no labels)"):
        paths = {"stores": out / "stores", "out": out / "pretrain", "overwrite": config.overwrite}
        encoder = pretraining.run(pretrain.model_copy(update=paths))
    evaluations = []
    for task in TASKS:
        with stage(console, f"finetune and evaluate: {task}"):
            finetune = load_yaml(settings / f"finetune_{task}.yaml", FinetuneConfig)
            paths = {"stores": out / "stores", "checkpoint": encoder, "out": out / task, "overwrite": config.overwrite}
            paths |= {"table": cohort / "dataset.csv", "splits": cohort / "splits"}
            predictions = finetuning.run(finetune.model_copy(update=paths))
            evaluations.append(evaluation.run(EvaluateConfig(predictions=predictions)))
    with stage(console, "explain: one slide"):
        folder = _explain(out, overwrite=config.overwrite)
    report = evaluation.combine_reports(evaluations, out / REPORT, "LongViT demo")
    for one in evaluations:
        console.print(summary_table(one.metrics))
    look = f"longvit view {out / 'subtype'} --explanations {folder.parent}"
    console.print(f"report  {report}\nmaps    {folder}\nviewer  {look}", highlight=False, soft_wrap=True)
    return report


def settings_folder(config: DemoConfig) -> Path:
    """Return the folder of settings to use.

    Raises:
        ConfigError: The folder lacks a file that the demo reads.
    """
    folder = config.configs or shipped_settings()
    names = ["tile.yaml", "pretrain.yaml", *(f"finetune_{task}.yaml" for task in TASKS)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        fix = "give --configs a folder with these files"
        raise ConfigError(f"the demo's settings lack {', '.join(missing)}", where=folder, fix=fix)
    return folder


def shipped_settings() -> Path:
    """Return `configs/tiny` of the checkout, or the folder in which an installation has put it."""
    checkout = Path(__file__).parents[1] / "configs" / "tiny"
    if checkout.is_dir():
        return checkout
    installed = [Path(file.locate()).parent for file in files("longvit") or () if file.match("longvit/configs/tiny/*")]
    return installed[0] if installed else checkout


@contextmanager
def stage(console: Console, name: str) -> Iterator[None]:
    """Print the name of a stage, and after the stage its duration."""
    console.rule(f"[bold]{name}", align="left", style="dim")
    start = time.monotonic()
    yield
    console.print(f"[dim]{time.monotonic() - start:.0f} s[/]")


def _make_cohort(config: DemoConfig, console: Console) -> Path:
    """Draw the cohort, unless the folder already contains one with the same settings.

    Raises:
        ConfigError: The folder contains another cohort.
    """
    folder, drawn = config.out / "cohort", {"patients": config.patients, "seed": config.seed}
    mark = folder / "drawn.json"
    if mark.exists() and json.loads(mark.read_text(encoding="utf-8")) == drawn and not config.overwrite:
        return folder
    if mark.exists() and not config.overwrite:
        raise ConfigError(
            "this folder contains a demo with another cohort",
            where=config.out,
            fix="choose another --out, or start again with --overwrite",
        )
    if mark.exists():  # the cohort came from a demo, so its stores may be removed
        shutil.rmtree(config.out / "stores", ignore_errors=True)
    with claimed(folder, mark.name) as partial, Progress(console=console) as progress:
        task = progress.add_task("slides", total=None)
        make_cohort(partial, **drawn, on_slide=lambda slide: progress.update(task, advance=1, description=slide))
        write_whole(partial / mark.name, json.dumps(drawn))
    return folder


def _explain(out: Path, *, overwrite: bool) -> Path:
    """Explain the held-out slide of the subtype model's highest probability, by the fold that did not train on it."""
    rows = read_prediction_rows(out / "subtype" / PREDICTIONS)
    held_out = [row for row in rows if row["split"] == "test" and not row[SHUFFLED]]
    surest = max(held_out, key=lambda row: max(float(row[name]) for name in row if name.startswith(PROBABILITY)))
    config = ExplainConfig(
        model=out / "subtype" / f"fold_{surest['fold']}" / "model.safetensors",
        stores=out / "stores" / f"{surest['slide_id']}.zarr",
        out=out / "explain",
        overwrite=overwrite,
    )
    return explanation.run(config).folders[config.stores.stem]
