"""Single measurement of `longnet.py`: LongViT-small's attention layer, ours or the textbook's; prints its cost.

python tests/benchmarks/longnet_layer.py ours --tokens 65536 --dtype float32 --backward
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import textbook
import torch
from torch import Tensor

from longvit.config import PRESETS, EncoderConfig, ExecutionConfig
from longvit.model.attention.layer import DilatedSelfAttention
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.shares import row_lengths

PRESET = "longvit_small_32768"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=["ours", "textbook"])
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--branches", type=int, default=5, help="of the preset's, the first so many")
    a = parser.parse_args()
    torch.manual_seed(0)
    branches = {name: getattr(PRESETS[PRESET], name)[: a.branches] for name in ("segment_lengths", "dilation_ratios")}
    config = PRESETS[PRESET].model_copy(update=branches)
    layer = DilatedSelfAttention(config).to(getattr(torch, a.dtype))
    x_BLD = torch.randn(1, a.tokens, config.width, dtype=getattr(torch, a.dtype), requires_grad=a.backward)
    run = partial(our_layer if a.side == "ours" else textbook_layer, layer, config)
    step(run, x_BLD[:, : min(config.segment_lengths)].detach().requires_grad_(a.backward))  # kernels are set up
    before, start = _peak_mb(), time.perf_counter()
    step(run, x_BLD)
    print(json.dumps({"seconds": time.perf_counter() - start, "mb": _peak_mb() - before, "tokens": a.tokens}))


def step(run: Callable[[Tensor], Tensor], x_BLD: Tensor) -> None:
    """Run the layer forward, and backward if the tokens require a gradient."""
    with nullcontext() if x_BLD.requires_grad else torch.inference_mode():
        out_BLD = run(x_BLD)
        if x_BLD.requires_grad:
            out_BLD.sum().backward()


def our_layer(layer: DilatedSelfAttention, config: EncoderConfig, x_BLD: Tensor) -> Tensor:
    """Return our layer, which keeps only its input for the backward pass."""
    execution = ExecutionConfig(recompute="all_but_attention")
    return layer(x_BLD, AttentionPlan.of(config, row_lengths(x_BLD, None), execution))


def textbook_layer(layer: DilatedSelfAttention, config: EncoderConfig, x_BLD: Tensor) -> Tensor:
    """Return a layer of the same weights with the textbook's attention."""
    q, k, v = (proj(x_BLD).unflatten(-1, (config.heads, -1)) for proj in (layer.q_proj, layer.k_proj, layer.v_proj))
    out = textbook.dilated_attention(q, k, v, config.segment_lengths, config.dilation_ratios)
    return layer.out_proj(layer.inner_attn_ln(out.flatten(-2)))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
