"""Single training of `byte_model.py`: a small causal LongNet on Python's own sources; rank 0 prints a line of JSON.

    python tests/benchmarks/byte_model_training.py --turns 2
    torchrun --nproc-per-node 2 tests/benchmarks/byte_model_training.py --turns 2

On several ranks every row of bytes is cut into one share per rank.
"""

import argparse
import json
import math
import os
import sysconfig
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from longvit.config import EncoderConfig
from longvit.model import LongNetDecoder
from longvit.model.rank_group import RankGroup

CONTEXTS = (256, 1024, 4096, 16384)
"""Lengths of rows in training, and of contexts in evaluation, bytes."""
CONFIG = EncoderConfig(width=128, depth=2, heads=4, drop_path=0.0, segment_lengths=(256, 16384), dilation_ratios=(1, 2))
FEWEST = 2048
"""Bytes of a training step; a longer row is a step of its own."""
STEPS = {1024: 600, 4096: 240, 16384: 120}
"""Steps with each length of rows, in this order, since short rows are cheap."""
RATE, WARM_UP, EMBEDDING_GAIN = 3e-3, 50, 4.0
GRAM = 4
"""Bytes that the untrained model compares; one per head of the first block."""
NEAR, MATCH, COPY = 6.0, 1.5, 0.7
"""Sizes of the untrained model's weights: the first block's attention to its byte, the second block's to the bytes that
are alike, and the output of both."""
TARGETS = 64
"""Last bytes of a held-out window, whose loss is measured with every context."""
FOREIGN = "foreign"
"""Name of the context whose far bytes are another window's."""
HELD_OUT, OF = 4, 8
"""Of every eight modules and packages in alphabetical order, the fifth is held out."""
LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "encodings"}
"""Folders left out: not Python's own, not in every installation, or tables that repeat each other."""


def library() -> dict[str, bytes]:
    """Return the content of the standard library's modules that are longer than the longest context, by path."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    ours = (path for path in paths if not LEFT_OUT & set(path.parts) and not path.name.startswith("_sysconfigdata"))
    contents = ((path.as_posix(), (root / path).read_bytes()) for path in ours)
    return {name: content for name, content in contents if len(content) > max(CONTEXTS)}


def split(files: dict[str, bytes]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the files of training and the files held out; a package is in one of them as a whole."""
    names = sorted({name.partition("/")[0] for name in files})
    held_out = set(names[HELD_OUT::OF])
    tensors = {name: torch.frombuffer(bytearray(content), dtype=torch.uint8) for name, content in files.items()}
    of = lambda side: {name: x for name, x in tensors.items() if (name.partition("/")[0] in held_out) is side}
    return of(False), of(True)


class Rows:
    """Random rows of consecutive bytes, each within one file; every place of a file is as likely as any other.

    All ranks draw the same rows.
    """

    def __init__(self, files: Sequence[Tensor]) -> None:
        self.files, self.generator = files, torch.Generator().manual_seed(0)
        self.lengths = torch.tensor([len(file) for file in files], dtype=torch.float64)

    def draw(self, length: int) -> Tensor:
        """Return the rows of a step (B, length + 1): the first byte of a row is only given, the last only predicted."""
        chosen = torch.multinomial(self.lengths, max(1, FEWEST // length), replacement=True, generator=self.generator)
        return torch.stack([self._row(self.files[i], length + 1) for i in chosen])

    def _row(self, file: Tensor, length: int) -> Tensor:
        start = int(torch.randint(len(file) - length + 1, (), generator=self.generator))
        return file[start : start + length].long()


def windows(files: Sequence[Tensor], count: int) -> Tensor:
    """Return windows (B, longest context + 1) at about equal distances in the files, each within one file."""
    length = max(CONTEXTS) + 1
    starts = sum(len(file) - length + 1 for file in files)
    apart = max(1, starts // count)
    return torch.cat([file.unfold(0, length, apart) for file in files]).long()


def bits_per_byte(model: Callable[[Tensor], Tensor], rows_BM: Tensor, scored: int, group: RankGroup | None) -> Tensor:
    """Return the mean bits of the last `scored` bytes of each row (B,), each predicted from all bytes before it.

    Of a group, each rank computes its share of the row; every rank returns the mean of the whole row.
    """
    given, targets = rows_BM[:, :-1], rows_BM[:, 1:]
    is_scored_BL = (torch.arange(targets.shape[1]) >= targets.shape[1] - scored).expand_as(targets)
    if group:
        given, targets, is_scored_BL = (
            x.tensor_split(group.size, dim=1)[group.rank] for x in (given, targets, is_scored_BL)
        )
    nats_BL = cross_entropy(model(given).transpose(1, 2), targets, reduction="none")
    sum_B = (nats_BL * is_scored_BL).sum(1)
    return (group.sum(sum_B) if group else sum_B) / scored / math.log(2)


def build(group: RankGroup | None) -> LongNetDecoder:
    """Return the untrained model, the same on every rank.

    Embeddings begin about as large as the attention that is added to them. The last norm begins smaller by the same
    factor, so that logits begin as small as without it.
    """
    torch.manual_seed(0)
    decoder = LongNetDecoder(CONFIG, 256)
    with torch.no_grad():
        decoder.embedding.weight *= EMBEDDING_GAIN
        decoder.norm.weight /= EMBEDDING_GAIN
        begin_with_copying(decoder)
    decoder.group = group
    return decoder


def begin_with_copying(decoder: LongNetDecoder) -> None:
    """Change the weights so that the model copies the byte that has followed the last bytes before (an induction head).

    Long training finds such heads by itself (Olsson et al., arXiv:2209.11895), and they use far bytes; minutes of
    training do not. The embedding takes the first half of the width. Head h of the first block attends to the byte at
    distance h + 1, by biases of the rotated channels, and adds a projection of it to a part h of the second half. A
    head of the second block compares the last bytes of the query with those before the key, by its other channels.
    Half of the heads return the key's byte, and half compare bytes one further back and return the byte before the
    key, because with a ratio of 2 a head has every second key only.
    """
    half, heads = CONFIG.width // 2, CONFIG.heads
    channels = CONFIG.width // heads
    content, turned = channels // 2, channels // 4
    own, part = slice(0, half), [slice(half + i * content, half + (i + 1) * content) for i in range(GRAM)]
    of_head = [slice(h * channels, h * channels + content) for h in range(heads)]
    orthogonal = lambda rows, columns: nn.init.orthogonal_(torch.empty(rows, columns))
    first, second = (block.self_attn for block in decoder.blocks.blocks)
    decoder.embedding.weight[:, half:] = 0
    decoder.embedding.weight *= math.sqrt(2)
    for block in decoder.blocks.blocks:
        block.ffn.fc2.weight *= 0.1
        for layer in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.out_proj):
            layer.weight *= 0.1
        block.self_attn.v_proj.weight.zero_()
    narrow, angle = orthogonal(content, half), 10_000 ** -(torch.arange(4) / turned)
    for h, at in enumerate(of_head):
        first.k_proj.bias[at][:4] = NEAR
        first.q_proj.bias[at][:4] = NEAR * (angle * (h + 1)).cos()
        first.q_proj.bias[at][turned : turned + 4] = -NEAR * (angle * (h + 1)).sin()
        first.v_proj.weight[at, own] = narrow
        first.out_proj.weight[part[h], at] = COPY * torch.eye(content)
    compared = [MATCH * orthogonal(content, content) for _ in range(GRAM)]
    for h, at in enumerate(of_head):
        late, alike = h // 2 % 2, slice(at.stop, at.stop + content)
        for i in range(GRAM - late):
            second.q_proj.weight[alike, part[i - 1] if i else own] = compared[i] if i else compared[i] @ narrow
            second.k_proj.weight[alike, part[i + late]] = compared[i]
        if late:
            second.v_proj.weight[at, part[0]] = torch.eye(content)
            second.out_proj.weight[own, at] = COPY * narrow.T
        else:
            whole, copied = slice(h * channels, (h + 1) * channels), orthogonal(channels, half)
            second.v_proj.weight[whole, own] = copied
            second.out_proj.weight[own, whole] = COPY * copied.T


def train(decoder: LongNetDecoder, rows: Rows, lengths: Sequence[int]) -> list[dict[str, float]]:
    """Train with a row length per step; return each step's length, bits per byte, seconds and processor seconds.

    The mean of the ranks' gradients, which DistributedDataParallel computes, is the gradient of one process.
    """
    group = decoder.group
    model = DistributedDataParallel(decoder, process_group=group.processes) if group else decoder
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))
    before = [0, *accumulate(max(FEWEST, length) for length in lengths)]
    shape = lambda step: min(1, (step + 1) / WARM_UP) * (1 - before[step] / before[-1])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, shape)
    log = []
    for length in lengths:
        rows_BM, start, processor = rows.draw(length), time.perf_counter(), time.process_time()
        bits = bits_per_byte(model, rows_BM, length, group).mean()
        optimiser.zero_grad()
        bits.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        found = {"length": length, "bytes": rows_BM[:, 1:].numel(), "bits": bits.item()}
        log.append(found | {"seconds": seconds, "processor": processor})
    return log


@torch.inference_mode()
def evaluate(decoder: LongNetDecoder, windows_BM: Tensor) -> dict[str, list[float]]:
    """Return for each context the bits per byte of each window's last bytes, given only the end of the window.

    `FOREIGN` is the longest context, but with only as many bytes of the window as the second longest context has. The
    bytes before them are another window's.
    """
    known = CONTEXTS[-2] + 1
    others_BM = windows_BM.roll(len(windows_BM) // 2, 0)
    rows = {str(length): windows_BM[:, -length - 1 :] for length in CONTEXTS}
    rows[FOREIGN] = torch.cat([others_BM[:, :-known], windows_BM[:, -known:]], 1)
    bits = lambda rows_BM: bits_per_byte(decoder, rows_BM, TARGETS, decoder.group).tolist()
    return {name: [b for row in rows_BM.split(1) for b in bits(row)] for name, rows_BM in rows.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1, help="of the steps")
    parser.add_argument("--turns", type=int, default=0, help="instead, so many steps with rows of each length in turn")
    parser.add_argument("--windows", type=int, default=0, help="held-out windows to evaluate, about")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    group = None
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        group = RankGroup(dist.group.WORLD)
    decoder, (training, held_out) = build(group), split(library())
    lengths = planned(a.share)
    log = train(decoder, Rows(list(training.values())), [*CONTEXTS] * a.turns or lengths)
    result = {"log": log, "about": described(decoder, training, held_out)}
    if a.windows:
        result["bits"] = evaluate(decoder, windows(list(held_out.values()), a.windows))
    if not group or group.rank == 0:
        print(json.dumps(result))
    if group:
        dist.destroy_process_group()


def planned(share: float) -> list[int]:
    """Return the length of rows of each step, for a share of all steps."""
    return [length for length, count in STEPS.items() for _ in range(round(share * count))]


def described(decoder: LongNetDecoder, training: dict[str, Tensor], held_out: dict[str, Tensor]) -> dict[str, object]:
    """Return the sizes of model and text."""
    names = ("width", "depth", "heads", "segment_lengths", "dilation_ratios")
    return {name: getattr(decoder.config, name) for name in names} | {
        "weights": sum(p.numel() for p in decoder.parameters()),
        "training": sum(map(len, training.values())),
        "held_out": sum(map(len, held_out.values())),
        "names": sorted({f"`{name.partition('/')[0]}`" for name in held_out}),
    }


if __name__ == "__main__":
    main()
