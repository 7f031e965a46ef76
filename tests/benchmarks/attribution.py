"""Time and peak memory of received attention and rollout for LongViT-small on long sequences; writes `attribution.md`.

python tests/benchmarks/attribution.py --tokens 65536 1048576 --depth 12
"""

import argparse
import sys
from pathlib import Path

import machine
from measure import run_measured

HERE = Path(__file__).parent
WHATS = ("forward", "received", "received by backward", "rollout")


def page(rows: list[str]) -> str:
    """The text of `attribution.md`."""
    about = "\n".join(f"- {line}" for line in machine.describe(("numpy", "torch")))
    return f"""# Attention maps, measured

LongViT-small (width 384, 16 heads, segments 1024, 4096, 32768, 262144, 1048576 and ratios 1, 2, 4, 8, 16), random
weights, float32. Received attention is that of every layer, all heads and branches; the forward passes between the
layers are in the time. `received by backward` is one layer's through the gradient of the values, which the forward
kernel replaced. MB are those above the process before. Written by `tests/benchmarks/attribution.py`.

{about}

| tokens | layers | what | seconds | MB |
|---:|---:|---|---:|---:|
{chr(10).join(rows)}
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[65536])
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--what", nargs="+", default=WHATS)
    parser.add_argument("--out", type=Path, default=HERE / "attribution.md")
    a = parser.parse_args()
    rows = []
    for tokens in a.tokens:
        for what in a.what:
            depth = 1 if what == "received by backward" else a.depth
            options = ["--tokens", str(tokens), "--depth", str(depth)]
            result = run_measured([sys.executable, HERE / "attribution_layer.py", what, *options])
            rows.append(f"| {tokens:,} | {depth} | {what} | {result['seconds']:.1f} | {result['mb']:,.0f} |")
            print(rows[-1], file=sys.stderr, flush=True)
    a.out.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
