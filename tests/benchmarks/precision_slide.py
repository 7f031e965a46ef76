"""Measurements of `precision.py`: a slide of random pixels through LongViT-small; prints its cost.

python tests/benchmarks/precision_slide.py memory narrowed 65536
python tests/benchmarks/precision_slide.py time 65536 5
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
PIECE, WARM = 1024, 512
BLOCKS = 1 << 17
"""Tokens from which the encoder has three blocks instead of twelve; a block reuses the memory of the previous block."""


def build(mode: str, depth: int) -> LongViT:
    """Return an encoder of `depth` blocks, with the same random weights in each mode."""
    torch.manual_seed(0)
    config = PRESETS[PRESET].model_copy(update={"depth": depth})
    encoder = LongViT(config).eval()
    return {
        "float32": encoder.float,
        "bfloat16": encoder.bfloat16,
        "narrowed": lambda: encoder.narrowed(torch.bfloat16),
    }[mode]()


def memory(mode: str, tokens: int) -> dict:
    """Return the slide's vector, and the MB that encoding adds to the process."""
    encoder = build(mode, 3 if tokens >= BLOCKS else 12)
    encode(encoder, WARM)  # kernels are set up
    before = peak_mb()
    slide_1D = encode(encoder, tokens)
    return {"mb": peak_mb() - before, "vector": slide_1D[0].float().tolist()}


def times(tokens: int, repeat: int) -> dict:
    """Return seconds of `bfloat16` and `narrowed`, in turns, on one block; all blocks take several times as long."""
    encoders = [build(mode, 1) for mode in ("bfloat16", "narrowed")]
    seconds = []
    for turn in range(repeat + 1):
        for encoder in encoders:
            start = time.perf_counter()
            encode(encoder, tokens if turn else WARM)
            seconds.append(time.perf_counter() - start)
    return {"bfloat16": seconds[2::2], "narrowed": seconds[3::2]}


@torch.inference_mode()
def encode(encoder: LongViT, tokens: int) -> torch.Tensor:
    """Return the vector of a slide of `tokens` tokens, in rows of 512, embedded piece by piece."""
    pixels = torch.Generator().manual_seed(0)
    rc_1L2 = torch.stack((torch.arange(tokens) // 512, torch.arange(tokens) % 512), dim=-1)[None]
    extent = extent_of(rc_1L2, torch.ones_like(rc_1L2[..., 0], dtype=torch.bool))
    x_1LD = torch.empty(1, tokens, encoder.config.width, dtype=encoder.dtype)
    for start in range(0, tokens, PIECE):
        piece = slice(start, min(start + PIECE, tokens))
        shape = 1, piece.stop - piece.start, encoder.input.proj.in_features
        patches = torch.randint(0, 256, shape, dtype=torch.uint8, generator=pixels)
        x_1LD[:, piece] = encoder.embed(TokenBatch(patches, rc_1L2[:, piece], torch.ones(shape[:2]).bool()), extent)
    return encoder.encode(x_1LD, overwrite=True).slide_BD


def peak_mb() -> float:
    """Return the peak resident memory of this process, MB; `ru_maxrss` would include its parent's memory."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    print(json.dumps(memory(given[0], int(given[1])) if what == "memory" else times(*map(int, given))))
