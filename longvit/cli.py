"""The verbs. One typed config each; the work is imported only when its verb runs, so that `--help` loads no torch."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Yaml
from pydantic import ValidationError

from longvit import __version__
from longvit.config import (
    DemoConfig,
    EvaluateConfig,
    ExplainConfig,
    FinetuneConfig,
    PretrainConfig,
    TileConfig,
)
from longvit.settings import invalid
from preprocessing.errors import ConfigError, PipelineError

app = App(
    name="longvit",
    version=__version__,
    help="Gigapixel whole-slide images -> slide representations -> subtypes and survival.",
    help_epilogue="Every verb takes --config FILE.yaml; flags go before the file. Exit: 0 done, 1 some slides failed, "
    "2 the request was wrong.",
    result_action="return_value",
)


@app.command
def tile(*, config: Annotated[TileConfig, Parameter(name="*")]) -> int:
    """Slides -> patch stores."""
    from preprocessing.tile import run

    return run(config).exit_code


@app.command
def pretrain(*, config: Annotated[PretrainConfig, Parameter(name="*")]) -> int:
    """Stores -> encoder, without labels."""
    from longvit.pretraining.run import run

    run(config)
    return 0


@app.command
def finetune(*, config: Annotated[FinetuneConfig, Parameter(name="*")]) -> int:
    """Encoder + table + splits -> one model per fold, predictions.csv."""
    from longvit.finetuning.run import run

    run(config)
    return 0


@app.command
def evaluate(config: Annotated[EvaluateConfig, Parameter(name="*")]) -> int:
    """predictions.csv -> metrics.json, report.html."""
    from rich import print as show

    from longvit.evaluation.run import run, summary_table

    evaluation = run(config)
    show(summary_table(evaluation.metrics))
    print(evaluation.report_path)
    return 0


@app.command
def explain(*, config: Annotated[ExplainConfig, Parameter(name="*")]) -> int:
    """Model + store -> heatmap and token scores."""
    from longvit.explanation.run import run

    print(run(config))
    return 0


@app.command
def demo(*, config: Annotated[DemoConfig, Parameter(name="*")] = DemoConfig()) -> int:  # noqa: B008
    """The whole line, on a cohort that it makes itself."""
    from longvit.demo import run

    run(config)
    return 0


def run_command(arguments: Sequence[str]) -> int:
    """Parse and run one command line.

    Raises:
        PipelineError: The request was wrong.
    """
    arguments, file = _take_config(list(arguments))
    app.config = [Yaml(file, must_exist=True, use_commands_as_keys=False)] if file else []
    where = f"command line{f' and {file}' if file else ''}"
    try:
        return app(arguments, exit_on_error=False, print_error=False) or 0
    except CycloptsError as error:
        if isinstance(error.__cause__, ValidationError):
            raise invalid(error.__cause__, where) from None
        raise ConfigError(str(error), where=where, fix="`longvit VERB --help` lists every setting") from None


def _take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Split `--config FILE` (or `--config=FILE`) off the command line."""
    for i, argument in enumerate(arguments):
        if argument == "--config" or argument.startswith("--config="):
            _, equals, value = argument.partition("=")
            used = 1 if equals else 2
            file = Path(value if equals else " ".join(arguments[i + 1 : i + 2]))
            if not file.is_file():
                raise ConfigError("the settings file does not exist", where=file, fix="check the path after --config")
            return arguments[:i] + arguments[i + used :], file
    return arguments, None


def main() -> None:
    """Entry point of `longvit`: exit code 0 done, 1 some slides failed, 2 the request was wrong."""
    try:
        sys.exit(run_command(sys.argv[1:]))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
