"""LongViT-small in bfloat16: `narrowed` beside all of it in bfloat16, and both against float32; writes `precision.md`.

    python tests/benchmarks/precision.py

A slide of random pixels goes from its tiles to its vector, as `encode` does it. The three take turns, each in a process
of its own.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

import machine
import numpy as np
from measure import run_measured

HERE = Path(__file__).parent
TOKENS = (1024, 4096, 16384, 65536, 262144)
MODES = ("float32", "bfloat16", "narrowed")
MOST = 1.1
"""Time and memory of `narrowed` over those of `bfloat16`, at most."""
CLOSE = 0.02
"""Distance of the slide's vector from that of float32, over its length, at most."""


def row(tokens: int, repeat: int) -> str:
    """A line of the table."""
    runs = {mode: [] for mode in MODES}
    for _ in range(repeat):
        for mode in MODES:
            runs[mode].append(run_measured([sys.executable, HERE / "precision_slide.py", mode, str(tokens)]))
            print(tokens, mode, {key: v for key, v in runs[mode][-1].items() if key != "vector"}, file=sys.stderr)
    exact, *vectors = (np.array(runs[mode][0]["vector"]) for mode in MODES)
    errors = [np.linalg.norm(vector - exact) / np.linalg.norm(exact) for vector in vectors]
    seconds, mb, peak = (
        [median(run[key] for run in runs[mode]) for mode in MODES] for key in ("seconds", "mb", "peak_mb")
    )
    cells = [f"{tokens:,}", *(f"{error:.1%}" for error in errors)]
    cells[-1] += "" if errors[1] <= CLOSE else " **(missed)**"
    for values, shown in ((seconds, ".2f"), (mb, ",.0f"), (peak, ",.0f")):
        ratio = values[2] / values[1]
        cells += [*(f"{value:{shown}}" for value in values), f"{ratio:.2f}{'' if ratio <= MOST else ' **(missed)**'}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--repeat", type=int, default=5)
    a = parser.parse_args()
    columns = [f"{what} {mode}" for what in ("s,", "MB more,", "MB in all,") for mode in (*MODES, "ratio")]
    about = machine.describe(("numpy", "torch"))
    rows = [row(tokens, 1 if tokens >= max(TOKENS) else a.repeat) for tokens in a.tokens]
    header = ["tokens", "off, bfloat16", "off, narrowed", *columns]
    page = [
        "# Encoding in bfloat16",
        "",
        "`off` is the distance of the slide's vector from that of float32, over the length of that. `bfloat16` has all",
        "weights and the stream of tokens in bfloat16; `narrowed`, which is `encode --precision bf16`, keeps the",
        "stream, norms and pooling in float32. MB more is what the slide adds to the process, MB in all its peak.",
        f"Ratios are narrowed over bfloat16, at most {MOST} wanted, and {CLOSE:.0%} off. Medians; the longest once.",
        "",
        *(f"- {line}" for line in about),
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *rows,
    ]
    (HERE / "precision.md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
