"""A language model of bytes, alone and on two ranks: its loss over the context, and its steps; writes `byte_model.md`.

    python tests/benchmarks/byte_model.py
    python tests/benchmarks/byte_model.py --results FOLDER

The trainings are those of `byte_model_training.py`. With `--results`, results are stored in a folder, and those that
are there are not measured again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import machine
from measure import run_measured

HERE = Path(__file__).parent
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ALONE, TWO_THREADS, TWO_RANKS = MODES = ("one process", "one process, two threads", "two ranks")
TURNS, REPEAT = 3, 1
TWO_WAYS = """It is trained alone (one thread), and on two ranks (`torchrun`, gloo, one thread each) with
every row of bytes cut over both."""
ONE_WAY = "It is trained alone (one thread); two ranks are not measured here."
PAGE = (
    """# A language model of bytes

LongNet's causal half: a `LongNetDecoder` of {weights:,} weights learns to predict the next byte of the standard
library of Python {python}. {ways}
Written by `tests/benchmarks/byte_model.py`.

{about}

- Model: width {width}, {depth} blocks, {heads} heads, segments {segment_lengths}, ratios {dilation_ratios}; float32.
- The weights begin as in LongNet, but with heads that copy the byte that has followed the last four bytes before
  (`begin_with_copying`). Minutes of training find no such heads: with LongNet's weights the loss of a narrower model
  rose by 0.023 bits from a context of 256 to one of 16,384 bytes (8,499,200 bytes of training, commit f8c829f).
- Text: modules of more than 16,384 bytes, without tests, and without `encodings`, whose tables repeat each other;
  {training:,} bytes for training. {held_out:,} bytes are held out: every eighth module or package as a whole, namely
  {names}.
- Training: rows get longer, {lengths}; {bytes:,} bytes in all.{of_ranks}

{verdict}
""",
    """
## Loss over the context

Bits per byte of the last 64 bytes of held-out windows ({windows} windows, each within one file), of which only the
last bytes are given to the model, as many as the context has. So the targets are the same with every context. `fall`
is the mean difference to the context above, with its standard error over the windows. The control has a window's last
4,096 bytes after 12,288 bytes of another window, and its `fall` is the difference to 4,096 bytes.
""",
    """
Bits per byte of training, mean of the last 20 steps of each length of rows. Seconds include other work of the machine,
processor seconds do not.
""",
    """
## One step, alone and on two ranks

The same first steps with rows of all lengths in turn, bits per byte before each step:
""",
    """
Seconds of such a step (and processor seconds of a process), medians of {steps} steps:
""",
)


def run(mode: str, *arguments: object) -> dict[str, Any]:
    """Run a training in one of the modes; return what it printed."""
    before, threads = TORCHRUN if mode == TWO_RANKS else (), 1 + (mode == TWO_THREADS)
    command = [sys.executable, *before, HERE / "byte_model_training.py", "--threads", threads, *arguments]
    return run_measured([str(part) for part in command])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table of numbers."""
    lines = (f"| {' | '.join(row)} |" for row in (head, *rows))
    return "\n".join([next(lines), f"|{'---:|' * len(head)}", *lines])


def fall(bits: dict[str, list[float]], context: str, other: str) -> tuple[float, float]:
    """Return how much lower the loss is with another context, bits per byte, and the standard error."""
    of_windows = [a - b for a, b in zip(bits[context], bits[other], strict=True)]
    return mean(of_windows), stdev(of_windows) / len(of_windows) ** 0.5


def contexts(runs: dict[str, dict[str, Any]]) -> str:
    """Format the loss of held-out bytes over the context."""
    *names, foreign = runs[ALONE]["bits"]
    rows = [[f"{int(name):,}"] for name in names] + [[f"{int(names[-1]):,}, control"]]
    pairs = [*pairwise(names), (names[-2], foreign)]
    for found in runs.values():
        cells = ["", *("{:.3f} ± {:.3f}".format(*fall(found["bits"], *pair)) for pair in pairs)]
        for row, bits, cell in zip(rows, found["bits"].values(), cells, strict=True):
            row += [f"{mean(bits):.3f}", cell]
    return table(["context, bytes", *(name for mode in runs for name in (f"bits per byte, {mode}", "fall"))], rows)


def verdict(bits: dict[str, list[float]]) -> str:
    """Return whether the loss falls with the context, by more than two standard errors, and the loss of the control."""
    *names, foreign = bits
    (own, error), (control, its_error) = fall(bits, names[0], names[-1]), fall(bits, foreign, names[-1])
    words = "falls" if own > 2 * error else "does not fall"
    return (
        f"**The loss {words} with the context**: its fall from {int(names[0]):,} to {int(names[-1]):,} bytes is "
        f"{own:.3f} ± {error:.3f} bits per byte (one process). The loss of the control is {control:.3f} ± "
        f"{its_error:.3f} above that of {int(names[-1]):,} bytes, from which it differs by its far bytes only."
    )


def trainings(runs: dict[str, dict[str, Any]]) -> str:
    """Format the loss at the end of the steps of each length, and the time that the training took."""
    rows = []
    for mode, found in runs.items():
        log = found["log"]
        of_length = [[step["bits"] for step in log if step["length"] == length] for length in lengths_of(log)]
        spent = [sum(step[kind] for step in log) for kind in ("seconds", "processor")]
        rows.append([mode, *(f"{mean(bits[-20:]):.3f}" for bits in of_length), *(f"{s:,.0f}" for s in spent)])
    return table(["", *(f"rows of {n:,}" for n in lengths_of(log)), "seconds", "processor seconds of a process"], rows)


def first_steps(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Format the loss of the first steps, with the deviation of the ranks from one process."""
    alone, ranks = (runs[mode][0]["log"] for mode in (ALONE, TWO_RANKS))
    rows = [
        [f"{i}", f"{a['length']:,}", f"{a['bits']:.7f}", f"{b['bits']:.7f}", f"{b['bits'] / a['bits'] - 1:+.1e}"]
        for i, (a, b) in enumerate(zip(alone, ranks, strict=True), start=1)
    ]
    return table(["step", "length of rows", ALONE, TWO_RANKS, "relative deviation"], rows)


def times(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Format the median time of a step for every length of rows, without the first step of each length."""
    lengths = lengths_of(runs[ALONE][0]["log"])

    def cell(found: list[dict[str, Any]], length: int, kind: str) -> str:
        steps = [step[kind] for one in found for step in one["log"][len(lengths) :] if step["length"] == length]
        return f"{median(steps):.2f}"

    rows = [
        [mode, *(f"{cell(found, n, 'seconds')} ({cell(found, n, 'processor')})" for n in lengths)]
        for mode, found in runs.items()
    ]
    return table(["seconds of a step (processor)", *(f"rows of {n:,}" for n in lengths)], rows)


def lengths_of(log: list[dict[str, Any]]) -> list[int]:
    """Return the lengths of rows in a training, shortest first."""
    return sorted({step["length"] for step in log})


def described(log: list[dict[str, Any]]) -> str:
    """Return the number of steps with each length of rows."""
    steps = [[step["bytes"] for step in log if step["length"] == length] for length in lengths_of(log)]
    return ", ".join(f"{len(of)} steps of {of[0] // n} x {n:,}" for n, of in zip(lengths_of(log), steps, strict=True))


def filled(runs: dict[str, dict[str, Any]], about: list[str]) -> list[str]:
    """Return the texts of the page, with machine, model, text and training."""
    found = runs[ALONE]
    of_ranks = described(runs.get(TWO_RANKS, found)["log"])
    values = {name: ", ".join(map(str, x)) if isinstance(x, list) else x for name, x in found["about"].items()} | {
        "about": "\n".join(f"- {line}" for line in about),
        "ways": TWO_WAYS if TWO_RANKS in runs else ONE_WAY,
        "python": sys.version.split()[0],
        "lengths": described(found["log"]),
        "of_ranks": "" if of_ranks == described(found["log"]) else f" On two ranks: {of_ranks}.",
        "bytes": sum(step["bytes"] for step in found["log"]),
        "verdict": verdict(found["bits"]),
        "windows": len(found["bits"]["256"]),
        "steps": REPEAT * (TURNS - 1),
    }
    return [text.format(**values) for text in PAGE]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", default="1", help="of the training's steps")
    parser.add_argument("--share-of-ranks", default="1", help="of those steps, on two ranks; 0: only alone")
    parser.add_argument("--windows", default="60", help="held-out windows, about")
    parser.add_argument("--results", type=Path, help="folder of results, which are not measured again")
    parser.add_argument("--out", type=Path, default=HERE / "byte_model.md")
    a = parser.parse_args()
    about = machine.describe(("torch",))

    def found(mode: str, name: str, *arguments: object) -> dict[str, Any]:
        file = a.results and a.results / f"{mode}, {name}.json"
        if file and file.exists():
            return json.loads(file.read_text())
        result = run(mode, *arguments)
        if file:
            file.write_text(json.dumps(result))
        return result

    shares = {ALONE: a.share} | ({TWO_RANKS: a.share_of_ranks} if float(a.share_of_ranks) else {})
    trained = {mode: found(mode, "trained", "--share", shares[mode], "--windows", a.windows) for mode in shares}
    tables = ["", contexts(trained), trainings(trained)]
    if TWO_RANKS in trained:
        short = {mode: [found(mode, f"turns {i}", "--turns", TURNS) for i in range(REPEAT)] for mode in MODES}
        tables += [first_steps(short), times(short)]
    texts = (part for pair in zip(filled(trained, about), tables, strict=False) for part in pair)
    a.out.write_text("\n".join(texts).rstrip() + "\n")


if __name__ == "__main__":
    main()
