"""Time and peak memory of received attention and rollout for LongViT-small on long sequences; writes `attribution.md`.

python tests/benchmarks/attribution.py --run 65536:12:forward,received,rollout --run 1048576:2:rollout

The page is written anew after every measurement, so that a run that is cut short leaves what it has found.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import machine
from measure import run_measured

HERE = Path(__file__).parent
WHATS = ("forward", "received", "backward", "rollout")


class Run(NamedTuple):
    """A sequence, an encoder, and what is asked of them."""

    tokens: int
    depth: int
    whats: tuple[str, ...]


def parse_run(text: str) -> Run:
    """`TOKENS:DEPTH:WHAT,WHAT`, as the command line has it."""
    tokens, depth, whats = text.split(":")
    if not set(whats.split(",")) <= set(WHATS):
        raise argparse.ArgumentTypeError(f"{whats}: choose from {', '.join(WHATS)}")
    return Run(int(tokens), int(depth), tuple(whats.split(",")))


def page(about: list[str], rows: list[str]) -> str:
    """The text of `attribution.md`."""
    lines = "\n".join(f"- {line}" for line in about)
    return f"""# Attention maps, measured

LongViT-small (width 384, 16 heads, segments 1024, 4096, 32768, 262144, 1048576 and ratios 1, 2, 4, 8, 16), random
weights, float32; its first layers where the table has fewer than 12. Received attention is that of every layer, all
heads and branches; the forward passes between the layers are in the time. Rollout keeps the tokens of ceil(log2 N) + 1
of N layers and computes the others again. `backward` is the received attention of the first layer alone through the
gradient of the values, which the forward kernel replaced. Processor seconds count every thread's. MB are those above
the process before, in which the embedded tokens already are.
Written by `tests/benchmarks/attribution.py`.

{lines}

| tokens | layers | what | seconds | processor seconds | MB |
|---:|---:|---|---:|---:|---:|
{chr(10).join(rows)}
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run", type=parse_run, action="append", required=True, metavar="TOKENS:DEPTH:WHAT,WHAT", dest="runs"
    )
    parser.add_argument("--out", type=Path, default=HERE / "attribution.md")
    a = parser.parse_args()
    about, rows = machine.describe(("numpy", "torch")), []
    for run in a.runs:
        for what in run.whats:
            print(f"{what}: {run.tokens:,} tokens, layers: {run.depth}", file=sys.stderr, flush=True)
            options = ["--tokens", str(run.tokens), "--depth", str(run.depth)]
            result = run_measured([sys.executable, HERE / "attribution_layer.py", what, *options])
            took = f"{result['seconds']:,.0f} | {result['processor_seconds']:,.0f} | {result['mb']:,.0f}"
            rows.append(f"| {run.tokens:,} | {run.depth} | {what} | {took} |")
            print(rows[-1], file=sys.stderr, flush=True)
            a.out.write_text(page(about, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
