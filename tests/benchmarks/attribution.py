"""Time and peak memory of received attention and rollout for LongViT-small on long sequences; writes `attribution.md`.

python tests/benchmarks/attribution.py --run 65536:12:forward,received,rollout --run 1048576:2:rollout

The page is written again after every measurement, so an interrupted run leaves its measurements.
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
    """Length of a sequence, depth of an encoder, and the computations to measure."""

    tokens: int
    depth: int
    whats: tuple[str, ...]


def parse_run(text: str) -> Run:
    """Return the run that `TOKENS:DEPTH:WHAT,WHAT` on the command line describes."""
    tokens, depth, whats = text.split(":")
    if not set(whats.split(",")) <= set(WHATS):
        raise argparse.ArgumentTypeError(f"{whats}: choose from {', '.join(WHATS)}")
    return Run(int(tokens), int(depth), tuple(whats.split(",")))


def page(about: list[str], rows: list[str]) -> str:
    """Return the text of `attribution.md`."""
    lines = "\n".join(f"- {line}" for line in about)
    return f"""# Attention maps, measured

LongViT-small (width 384, 16 heads, segments 1024, 4096, 32768, 262144, 1048576 and ratios 1, 2, 4, 8, 16),
random weights, float32; only the first layers if the table has fewer than 12. Received attention is computed
for every layer, all heads and all branches; the time includes the forward passes between the layers. Rollout
keeps the tokens of ceil(log2 N) + 1 of N layers and computes the other tokens again. `backward` is the received
attention of the first layer only, by the gradient of the values, which the forward kernel replaced. Processor
seconds are the sum over threads. MB is the memory added to a process that already contains the embedded tokens.
Written by `tests/benchmarks/attribution.py`.

{lines}

| tokens | layers | computation | seconds | processor seconds | MB |
|---:|---:|---|---:|---:|---:|
{chr(10).join(rows)}
"""


def main() -> None:
    """Run the command line."""
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
