"""One measurement of `precision.py`: a slide of random pixels through LongViT-small; prints what it took.

python tests/benchmarks/precision_slide.py narrowed 65536
"""

import json
import sys
import time
from pathlib import Path

import torch

from longvit.config import PRESETS
from longvit.model.encoder import LongViT
from longvit.model.position import extent_of
from longvit.tokens.batch import TokenBatch

PRESET = "longvit_small_1024"
PIECE = 1024


@torch.inference_mode()
def main(mode: str, tokens: int) -> None:
    """Embed piece by piece, then encode."""
    torch.manual_seed(0)
    encoder = LongViT(PRESETS[PRESET]).eval()
    encoder = (
        {"float32": encoder, "bfloat16": encoder.to(torch.bfloat16)}[mode]
        if mode != "narrowed"
        else encoder.narrowed(torch.bfloat16)
    )
    encode(encoder, 512)  # kernels are set up
    before, start = peak_mb(), time.perf_counter()
    slide_1D = encode(encoder, tokens)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "mb": peak_mb() - before, "vector": slide_1D[0].float().tolist()}))


def encode(encoder: LongViT, tokens: int) -> torch.Tensor:
    """The vector of a slide of so many tokens, in rows of 512."""
    pixels = torch.Generator().manual_seed(0)
    rc_1L2 = torch.stack((torch.arange(tokens) // 512, torch.arange(tokens) % 512), dim=-1)[None]
    extent = extent_of(rc_1L2, torch.ones_like(rc_1L2[..., 0], dtype=torch.bool))
    x_1LD = torch.empty(1, tokens, encoder.config.width, dtype=encoder.dtype)
    for start in range(0, tokens, PIECE):
        piece = slice(start, min(start + PIECE, tokens))
        rc = rc_1L2[:, piece]
        patches = torch.randint(
            0, 256, (1, rc.shape[1], encoder.input.proj.in_features), dtype=torch.uint8, generator=pixels
        )
        x_1LD[:, piece] = encoder.embed(TokenBatch(patches, rc, torch.ones(1, rc.shape[1]).bool()), extent)
    return encoder.encode(x_1LD, overwrite=True).slide_BD


def peak_mb() -> float:
    """The most resident memory that this process has had, MB; `ru_maxrss` would count what its parent had, too."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
