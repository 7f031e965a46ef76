"""LongViT-small in bfloat16: `narrowed` next to all of it in bfloat16, both against float32; writes `precision.md`.

    python tests/benchmarks/precision.py

A slide of random pixels is encoded from its tiles to its vector, as in `encode`.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

import machine
import numpy as np
from measure import run_measured

HERE = Path(__file__).parent
TURNS = {1024: 41, 4096: 31, 16384: 21, 65536: 11, 262144: 3}
MODES = ("float32", "bfloat16", "narrowed")
MOST = 1.1
"""Target of the ratios of time and memory, `narrowed` over `bfloat16`: at most this."""
CLOSE = 0.02
"""Target of the error of the slide's vector, relative to float32: at most this."""
HEADER = """# Encoding in bfloat16

`error` is the distance of the slide's vector from the float32 vector, divided by the length of the float32
vector. `bfloat16` has all weights and the stream of tokens in bfloat16. `narrowed`, which is `encode
--precision bf16`, keeps the stream, norms and pooling in float32. Ratios are narrowed over bfloat16. Targets
are a ratio of at most {most} and an error of at most {close:.0%}.

Times are medians of alternating turns in one process, with one block, which takes most of the time; the ratio
is the median over pairs of turns. Memory is measured in one process per mode: the memory that the slide adds,
and the peak. From 131,072 tokens on, three of the twelve blocks are used.

Before pixels were centred and vectors pooled in float32, the error of `bfloat16` was 25.8 and 23.0 % at 4,096
tokens (two seeds, 2026-11-30, by a script that was not kept).
"""


def measured(*arguments: object) -> dict:
    """Run `precision_slide.py` once and return its measurements."""
    return run_measured([sys.executable, HERE / "precision_slide.py", *map(str, arguments)])


def row(tokens: int) -> str:
    """Return a row of the table."""
    runs = [measured("memory", mode, tokens) for mode in MODES]
    exact, *vectors = (np.array(run["vector"]) for run in runs)
    errors = [np.linalg.norm(vector - exact) / np.linalg.norm(exact) for vector in vectors]
    took = measured("time", tokens, TURNS[tokens])
    seconds = [median(took[mode]) for mode in MODES[1:]]
    slower = median(b / a for a, b in zip(took["bfloat16"], took["narrowed"], strict=True))
    cells = [f"{tokens:,}", f"{errors[0]:.1%}", f"{errors[1]:.1%}" + ("" if errors[1] <= CLOSE else " **(missed)**")]
    cells += [*(f"{one:.2f}" for one in seconds), judged(slower)]
    for key in ("mb", "peak_mb"):
        mb = [run[key] for run in runs]
        cells += [*(f"{one:,.0f}" for one in mb), judged(mb[2] / mb[1])]
    return f"| {' | '.join(cells)} |"


def judged(ratio: float) -> str:
    """Format a ratio, with a mark if it misses its target."""
    return f"{ratio:.2f}" + ("" if ratio <= MOST else " **(missed)**")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TURNS))
    a = parser.parse_args()
    about = machine.describe(("numpy", "torch"))
    columns = ["tokens", "error, bfloat16", "error, narrowed", "s, bfloat16", "s, narrowed", "ratio"]
    columns += [f"{what}, {mode}" if mode else "ratio" for what in ("MB added", "MB peak") for mode in (*MODES, "")]
    rows = [row(tokens) for tokens in a.tokens]
    page = [HEADER.format(most=MOST, close=CLOSE), *(f"- {line}" for line in about), ""]
    page += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *rows]
    (HERE / "precision.md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
