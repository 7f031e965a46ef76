"""Verbs of the command line, with one typed config each.

The code of a verb is imported only when that verb runs, so that `--help` loads no torch.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict

from longvit import __version__
from longvit.cli.launch import launch, launched, refused_on_all_ranks
from longvit.cli.parsing import Request
from longvit.config import (
    VERBS,
    AuditConfig,
    DemoConfig,
    EncodeConfig,
    EvaluateConfig,
    ExplainConfig,
    FinetuneConfig,
    PredictConfig,
    PretrainConfig,
    SplitConfig,
    TileConfig,
    ViewConfig,
)
from preprocessing.config import StageConfig
from preprocessing.errors import OutputError, PipelineError
from preprocessing.jobs.files import cannot_write
from preprocessing.jobs.signals import StopSignal, stopped_by_signals

_MESHED = PretrainConfig | FinetuneConfig | EncodeConfig | PredictConfig
"""Settings of the verbs that several processes can run together."""
_NO_READER = 128 + 13
"""Exit code if the reader of the output has gone: 128 + SIGPIPE, a signal that Windows does not have."""
_MESHED_VERBS = {verb for verb, kind in VERBS.items() if issubclass(kind, _MESHED)}
_FIRST = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
"""True in the first of the processes that torchrun or Slurm has started, which prints what is printed once."""
_LINGER_S = 1.0
"""Time for other processes to print an error that this process has printed before them, seconds."""

app = App(
    name="longvit",
    version=__version__,
    help="Gigapixel whole-slide images -> slide representations -> subtypes and survival.",
    help_epilogue="Every verb takes --config FILE.yaml with the same settings; a flag overrides the file. "
    "Relative paths start at the working directory; relative paths in a manifest start at the manifest's folder. "
    "Exit codes: 0 done, 1 some slides failed (audit: unsound splits), 2 invalid request, 130 and 143 interrupted, "
    "141 the reader of the output has gone.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # else cyclopts calls sys.exit in any program that calls `run_command`
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)


@app.command
def tile(*, config: Annotated[TileConfig, Parameter(name="*")]) -> int:
    """Tile slides into patch stores."""
    from preprocessing.tile import run

    report = run(config)
    for problem in report.problems:
        print(problem, file=sys.stderr)
    print(f"{report.page_path}\n{report.summary}")
    return report.exit_code


@app.command
def pretrain(*, config: Annotated[PretrainConfig, Parameter(name="*")]) -> int:
    """Pretrain an encoder on stores, without labels."""
    from longvit.pretraining.pretrain import run

    print(run(config))
    return 0


@app.command
def split(*, config: Annotated[SplitConfig, Parameter(name="*")]) -> int:
    """Split the patients of a table into stratified folds."""
    from longvit.cohort.split import run

    print(run(config))
    return 0


@app.command
def audit(*, config: Annotated[AuditConfig, Parameter(name="*")]) -> int:
    """Check whether the splits of a cohort are sound; exit code 1 if not."""
    from longvit.cohort.audit import run

    return int(any(finding.level == "error" for finding in run(config).findings))


@app.command
def finetune(*, config: Annotated[FinetuneConfig, Parameter(name="*")]) -> int:
    """Finetune an encoder on a table and its splits: one model per fold, and predictions.csv."""
    from longvit.finetuning.finetune import run

    print(run(config))
    return 0


@app.command
def predict(*, config: Annotated[PredictConfig, Parameter(name="*")]) -> int:
    """Predict new stores with the models of a run: predictions.csv."""
    from longvit.prediction.predict import run

    predicted = run(config)
    print(predicted.table)
    return _failures(predicted.failed)


@app.command
def encode(*, config: Annotated[EncodeConfig, Parameter(name="*")]) -> int:
    """Encode each slide's store as one vector."""
    from longvit.encoding.encode import run

    encoded = run(config)
    print(encoded.table)
    return _failures(encoded.failed)


@app.command
def evaluate(config: Annotated[EvaluateConfig, Parameter(name="*")]) -> int:
    """Evaluate predictions.csv: metrics.json and report.html."""
    from rich import print as show

    from longvit.evaluation.evaluate import run
    from longvit.evaluation.report.page import summary_table

    evaluation = run(config)
    show(summary_table(evaluation.metrics))
    print(evaluation.report_path)
    return 0


@app.command
def explain(*, config: Annotated[ExplainConfig, Parameter(name="*")]) -> int:
    """Explain a prediction: map the parts of the slide that it draws on."""
    from longvit.explanation.explain import run

    explained = run(config)
    for folder in explained.folders.values():
        print(folder)
    return _failures(explained.failed)


@app.command
def view(config: Annotated[ViewConfig, Parameter(name="*")]) -> int:
    """Show the slides of a run, of stores or of explanations in the browser."""
    from longvit.viewer.view import run

    run(config)
    return 0


@app.command
def demo(*, config: Annotated[DemoConfig, Parameter(name="*")] = DemoConfig()) -> int:  # noqa: B008
    """Run the whole pipeline on a synthetic cohort."""
    from longvit.demo import run

    run(config)
    return 0


def _failures(failed: Mapping[str, PipelineError]) -> int:
    """Print the failures, on the first of several processes, and return the exit code."""
    for name, error in failed.items() if _FIRST else ():
        print(f"failed: {name}: {error}", file=sys.stderr)
    return int(bool(failed))


for place, verb in enumerate(VERBS):
    app[verb].sort_key = place  # `--help` lists the verbs in pipeline order, not alphabetically


def run_command(arguments: Sequence[str]) -> int:
    """Parse and run one command line.

    Returns:
        The exit code: 0 done, 1 some slides failed.

    Raises:
        PipelineError: The request is invalid.
    """
    try:
        with refused_on_all_ranks(meshed=not _MESHED_VERBS.isdisjoint(arguments)):
            command = _requested(arguments)
        return command() or 0
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(error) from error
    except MemoryError as error:
        fix = "run the same command on a machine with more memory; finished work is kept"
        raise OutputError("there was not enough memory", where=arguments[0], fix=fix) from error


def _requested(arguments: Sequence[str]) -> Callable[[], int | None]:
    """Return the verb of a command line, with its settings; or the start of its processes."""
    request = Request.read(arguments)
    app.config = [Dict(request.for_flags, source=str(request.file), use_commands_as_keys=False)] if request.file else []
    try:
        command, bound, _ = app.parse_args(request.arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise request.refusal(error) from None
    if isinstance(config := bound.arguments.get("config"), StageConfig):
        config = bound.arguments["config"] = request.completed(config)
        devices = config.execution.devices if isinstance(config, _MESHED) else 1
        if devices > 1 and not launched():
            return partial(launch, arguments, devices)
    return partial(command, *bound.args, **bound.kwargs)


def main() -> None:
    """Run the command line of this process; `longvit/README.md` lists the exit codes."""
    if not _FIRST:
        sys.stdout = open(os.devnull, "w", encoding="utf-8", newline="")  # noqa: SIM115 - until the process ends
    try:
        with stopped_by_signals():
            code = run_command(sys.argv[1:])
            sys.stdout.flush()
    except PipelineError as error:
        if launched():  # torchrun stops all processes as soon as one of them has ended
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if error.said:
            time.sleep(_LINGER_S)
        else:
            print(f"error: {error}", file=sys.stderr, flush=True)
        code = 2
    except StopSignal as stop:
        print(stop, file=sys.stderr)
        code = stop.exit_code
    except BrokenPipeError:  # the process that reads our output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _NO_READER
    sys.exit(code)
