"""Predicted cost of a sequence on 8 to 1,024 accelerators, and bytes of other ways to cut it; prints Markdown rows.

python tests/benchmarks/ranks_predicted.py
"""

from collections.abc import Iterator

import torch
from ranks import geometric

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.shares import Shares
from longvit.model.cost import memory_of_rank, sent_bytes, work_per_token

SHARE = 2**20
"""Tokens of an accelerator."""
RANKS = (8, 16, 64, 256, 1024)
SMALL = {"width": 384, "heads": 16, "depth": 12}
"""Size of LongViT-small."""
EXECUTION = ExecutionConfig(recompute="blocks")
DTYPE = torch.bfloat16


def dense_bytes(config: EncoderConfig, share: int, ranks: int, itemsize: int) -> dict[str, float | None]:
    """Return the bytes that a rank sends in a forward pass, per layer, in other ways to cut a sequence.

    Of N tokens, l on each of R ranks, with D numbers of e bytes: an all-gather of dense K and V, and ring attention
    (arXiv:2310.01889), send 2 (N - l) D e. Ulysses (arXiv:2309.14509) sends 4 l D e (R - 1) / R, and needs R <= H.
    """
    token = share * config.width * itemsize
    ulysses = 4 * token * (ranks - 1) / ranks if ranks <= config.heads else None
    return {"all-gather": 2 * token * (ranks - 1), "ring": 2 * token * (ranks - 1), "Ulysses": ulysses}


def plans(config: EncoderConfig, ranks: int) -> Iterator[AttentionPlan]:
    """Yield the plans of the first, a middle and the last rank."""
    borders = tuple(SHARE * i for i in range(ranks + 1))
    for rank in (0, ranks // 2, ranks - 1):
        yield AttentionPlan.of(config, borders[-1:], EXECUTION, shares=Shares(borders, rank))


def costs() -> Iterator[str]:
    """Yield a row per number of accelerators: branches, work per token, and memory and bytes of the costliest rank."""
    for ranks in RANKS:
        config = geometric(SHARE * ranks, **SMALL)
        some = list(plans(config, ranks))
        work = work_per_token(config, some[0])
        per_token = config.depth * (work.attention + work.feed_forward)
        sent = [max(sent_bytes(config, plan, DTYPE, training=training) for plan in some) for training in (False, True)]
        memory = [
            max(memory_of_rank(config, plan, DTYPE, training=training) for plan in some) for training in (False, True)
        ]
        cells = [f"{ranks:,}", f"{SHARE * ranks:,}", len(config.branches), f"{some[0].keys_per_query:,.0f}"]
        cells += [f"{per_token / 1e6:.1f}", f"{per_token * SHARE / 1e12:.1f}"]
        cells += [f"{size / 1e9:.2f}" for size in memory] + [f"{size / 1e6:.1f}" for size in sent]
        yield f"| {' | '.join(map(str, cells))} |"


def alternatives() -> Iterator[str]:
    """Yield a row per number of accelerators: MB that a rank sends per layer in a forward pass, ours and others."""
    for ranks in RANKS:
        config = geometric(SHARE * ranks, **SMALL)
        ours = max(sent_bytes(config, plan, DTYPE) for plan in plans(config, ranks)) / config.depth
        others = dense_bytes(config, SHARE, ranks, DTYPE.itemsize).values()
        cells = (f"{size / 1e6:,.1f}" if size else "-" for size in (ours, *others))
        yield f"| {ranks:,} | {SHARE * ranks:,} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print(*costs(), "", *alternatives(), sep="\n")
