"""LongViT-small's attention layer, ours next to the textbook's, alternating in one run; writes `longnet.md` and `.png`.

python tests/benchmarks/longnet.py
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import machine
import matplotlib.pyplot as plt
from longnet_layer import PRESET
from measure import run_measured

from longvit.config import PRESETS

HERE = Path(__file__).parent
LIBRARIES = ("numpy", "torch")
TOKENS = (4096, 16384, 65536, 262144)
FLAT_TOKENS = (16384, 32768, 65536, 262144, 1048576)
FLAT_BRANCHES = 3
TARGETS = {False: (0.9, 0.25), True: (0.95, 0.5)}
"""Forward, and with backward: our time and memory over the textbook's, at most, from 65,536 tokens."""


def layer(side: str, tokens: int, *options: str) -> dict[str, Any]:
    """Measure a layer once: seconds, and MB added to its process."""
    command = [sys.executable, HERE / "longnet_layer.py", side, "--tokens", str(tokens), *options]
    result = run_measured(command)
    print(side, tokens, *options, result, file=sys.stderr)
    return result


def compared(tokens: Sequence[int], repeat: int) -> Iterator[str]:
    """Yield a row per length, dtype and direction; the longest sequence is measured once."""
    for length, dtype, backward in product(tokens, ("float32", "bfloat16"), (False, True)):
        options = ["--dtype", dtype, *(["--backward"] if backward else [])]
        turns = 1 if length >= max(TOKENS) else repeat
        runs = [(layer("ours", length, *options), layer("textbook", length, *options)) for _ in range(turns)]
        ours, theirs = zip(*runs, strict=True)
        seconds, mb = ([median(run[key] for run in side) for side in (ours, theirs)] for key in ("seconds", "mb"))
        ratios = seconds[0] / seconds[1], mb[0] / mb[1]
        wanted = TARGETS[backward] if length >= 65536 else (None, None)
        missed = [
            "" if limit is None or ratio <= limit else " **(missed)**"
            for ratio, limit in zip(ratios, wanted, strict=True)
        ]
        cells = [f"{length:,}", dtype, "forward and backward" if backward else "forward"]
        cells += [f"{value:.2f}" for value in seconds] + [f"{ratios[0]:.2f}{missed[0]}"]
        cells += [f"{value:,.0f}" for value in mb] + [f"{ratios[1]:.2f}{missed[1]}"]
        yield f"| {' | '.join(cells)} |"


def flat(tokens: Sequence[int], repeat: int) -> list[tuple[int, float, float]]:
    """Return tokens, microseconds per token and MB of forward passes with segments of constant length."""
    found = []
    for length in tokens:
        runs = [layer("ours", length, "--branches", str(FLAT_BRANCHES)) for _ in range(repeat)]
        found.append((length, median(run["seconds"] for run in runs) / length * 1e6, median(run["mb"] for run in runs)))
    return found


def megaflops(tokens: int) -> float:
    """Return the layer's arithmetic, MFLOP per token: four projections, and 4 D w / r^2 for each branch's segments.

    A segment is at most as long as the sequence, so tokens of shorter sequences have fewer keys.
    """
    config = PRESETS[PRESET]
    branches = config.branches[:FLAT_BRANCHES]
    keys = sum(min(length, tokens) / ratio**2 for length, ratio in branches)
    return (8 * config.width**2 + 4 * config.width * keys) / 1e6


def draw(measured: list[tuple[int, float, float]], path: Path) -> None:
    """Draw the cost per token over the length."""
    lengths, costs, _ = zip(*measured, strict=True)
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    axes.plot(lengths, costs, "o-", color="#00618e")
    axes.set(xscale="log", xlabel="tokens", ylabel="microseconds per token and layer", ylim=(0, 1.25 * max(costs)))
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def page(rows: Sequence[str], measured: list[tuple[int, float, float]], repeat: int) -> str:
    """Return the text of `longnet.md`."""
    costs = [cost for _, cost, _ in measured]
    about = "\n".join(f"- {line}" for line in machine.describe(LIBRARIES))
    whole = [cost for length, cost, _ in measured if megaflops(length) == megaflops(2**30)]
    lines = "\n".join(
        f"| {length:,} | {cost:.1f} | {megaflops(length):.1f} | {mb:,.0f} |" for length, cost, mb in measured
    )
    return f"""# LongNet, measured

LongViT-small's attention layer (width 384, 16 heads, segments 1024, 4096, 32768, 262144, 1048576 and ratios 1,
2, 4, 8, 16), ours next to `textbook.py`, which makes every branch dense; both use torch's flash attention for
CPUs. Medians of {repeat} runs, alternating (one run at {max(TOKENS):,} tokens). MB is the memory that the layer
adds to its process. In training ours keeps only the input (`recompute: all_but_attention`).
Written by `tests/benchmarks/longnet.py`.

{about}

| tokens | dtype | computation | seconds, ours | textbook | ratio | MB, ours | textbook | ratio |
|---:|---|---|---:|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

Cost per token, forward, float32, with the first {FLAT_BRANCHES} branches: slowest over fastest
{max(costs) / min(costs):.2f}; of sequences at least as long as the longest segment {max(whole) / min(whole):.2f}.
A shorter sequence shortens that segment, so a token has fewer keys and takes less arithmetic.

| tokens | microseconds per token | MFLOP per token | MB |
|---:|---:|---:|---:|
{lines}

![Cost per token](longnet.png)
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--flat-tokens", type=int, nargs="+", default=FLAT_TOKENS)
    parser.add_argument("--out", type=Path, default=HERE / "longnet.md")
    a = parser.parse_args()
    measured = flat(a.flat_tokens, a.repeat)
    draw(measured, a.out.with_suffix(".png"))
    a.out.write_text(page(list(compared(a.tokens, a.repeat)), measured, a.repeat), encoding="utf-8")
    print(a.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
