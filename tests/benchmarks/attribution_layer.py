"""Single measurement of `attribution.py`; prints seconds and memory.

python tests/benchmarks/attribution_layer.py received --tokens 65536 --depth 12
"""

import argparse
import json
import resource
import time

import torch
from longnet_layer import PRESET
from torch import Tensor

from longvit.explanation import attention_rollout, received_attention
from longvit.model import PRESETS, LongViT
from longvit.model.attention.dilated import attend_branches, attend_branches_backward


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["forward", "received", "backward", "rollout"])
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--depth", type=int, default=12)
    a = parser.parse_args()
    torch.manual_seed(0)
    encoder = LongViT(PRESETS[PRESET].model_copy(update={"depth": a.depth})).eval()
    x_LD = torch.randn(a.tokens, encoder.config.width)
    run = {
        "forward": lambda encoder, x_LD: encoder.encode(x_LD[None]),
        "received": received_attention,
        "backward": by_backward,
        "rollout": attention_rollout,
    }[a.what]
    with torch.no_grad():
        run(encoder, x_LD[: min(encoder.config.segment_lengths)])  # kernels are set up
        before, start, busy = _peak_mb(), time.perf_counter(), time.process_time()
        run(encoder, x_LD)
    took = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - busy}
    print(json.dumps({**took, "mb": _peak_mb() - before}))


def by_backward(encoder: LongViT, x_LD: Tensor) -> Tensor:
    """Return received attention of the first layer as the gradient of its values, for an output gradient of 1."""
    config, block = encoder.config, encoder.encoder.layers[0]
    normed_1LD = block.self_attn_layer_norm(x_LD[None])
    projections = (block.self_attn.q_proj, block.self_attn.k_proj)
    q, k = (proj(normed_1LD).unflatten(-1, (config.heads, -1)) for proj in projections)
    received_LH = x_LD.new_empty(len(x_LD), config.heads)
    plan = encoder.plan(x_LD[None])
    for heads, groups in plan.calls():
        some_q, some_k = q[:, :, heads], k[:, :, heads]
        out = torch.empty_like(some_q)
        logsumexp = attend_branches(some_q, some_k, some_k, groups, plan, out)
        saved = (some_q, some_k, some_k, out, logsumexp)
        received_LH[:, heads] = attend_branches_backward(torch.ones_like(out), saved, groups, plan)[2][0, ..., 0]
    return received_LH


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
