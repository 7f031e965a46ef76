"""One sequence of random tokens on several ranks of this machine; prints time, memory and bytes, and what is predicted.

python tests/benchmarks/ranks.py --ranks 2 --tokens 131072 --training
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.model import LongViT
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.shares import Shares
from longvit.model.cost import memory_of_rank, sent_bytes, work_per_token
from longvit.model.rank_group import RankGroup

FIRST, FACTOR = 1024, 4
"""Segment length of the first branch, and the factor of segment length and ratio from branch to branch."""
_M_MMAP_THRESHOLD = -3


def geometric(tokens: int, **settings: int) -> EncoderConfig:
    """Return an encoder whose branches (1024, 1), (4096, 4), (16384, 16), ... end with the whole sequence."""
    ratios = [1]
    while FIRST * ratios[-1] < tokens:
        ratios.append(FACTOR * ratios[-1])
    lengths = tuple(FIRST * ratio for ratio in ratios)
    return EncoderConfig(segment_lengths=lengths, dilation_ratios=tuple(ratios), drop_path=0.0, **settings)


class Late:
    """Exchange that arrives at a given time or later, as over a slower network; a rank that waits for it sleeps."""

    def __init__(self, work: dist.Work, at: float) -> None:
        self.work, self.at = work, at

    def wait(self) -> None:
        """Wait for the messages and the time."""
        self.work.wait()
        time.sleep(max(0.0, self.at - time.perf_counter()))


class Counted:
    """Counter of the calls of `all_to_all_single`, and of the bytes that they send.

    Args:
        at_once: Whether a call returns only after its messages have arrived.
        link: Shortest time that an exchange takes, seconds.
    """

    def __init__(self, *, at_once: bool = False, link: float = 0.0) -> None:
        self.calls, self.bytes, self.at_once, self.link, self._real = 0, 0, at_once, link, dist.all_to_all_single

    def __call__(self, output: Tensor, source: Tensor, *args: object, **kwargs: object) -> Late:
        self.calls, self.bytes = self.calls + 1, self.bytes + source.nbytes
        work = Late(self._real(output, source, *args, **kwargs), time.perf_counter() + self.link)
        if self.at_once:
            work.wait()
        return work


def step(encoder: LongViT, x_1LD: Tensor, *, training: bool) -> float:
    """Return the seconds of a forward pass, or of a training step with AdamW and the mean of the ranks' gradients."""
    group = encoder.group
    if group is not None:
        dist.barrier(group.processes)
    start = time.perf_counter()
    if not training:
        with torch.inference_mode():
            encoder.encode(x_1LD, overwrite=True)
        return time.perf_counter() - start
    optimiser = torch.optim.AdamW(encoder.encoder.parameters(), lr=1e-4)
    encoder.encode(x_1LD).slide_BD.square().sum().backward()
    for parameter in encoder.encoder.parameters() if group is not None else ():
        dist.all_reduce(parameter.grad, group=group.processes)
        parameter.grad /= group.size
    optimiser.step()
    return time.perf_counter() - start


def measured(
    group: RankGroup | None,
    config: EncoderConfig,
    execution: ExecutionConfig,
    tokens: int,
    dtype: torch.dtype,
    *,
    training: bool,
    repeat: int = 1,
    overlap: bool = False,
    link: float = 0.0,
) -> dict[str, Any]:
    """Measure one rank; return its figures and those of the model of cost, bytes and seconds.

    Memory is the most that a step adds, including its tokens. With `overlap`, every step is followed by one that waits
    for each exchange before it computes.
    """
    # Large tensors go back to the system, so that peaks are those of tensors and not of the allocator.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)
    torch.manual_seed(0)
    encoder = LongViT(config).to(dtype).train(training)
    encoder.group, encoder.execution = group, execution
    rank, size = (0, 1) if group is None else (group.rank, group.size)
    shares = Shares(tuple(tokens * i // size for i in range(size + 1)), rank)
    share = shares.borders[rank + 1] - shares.borders[rank]
    draw = lambda length: torch.randn(1, length, config.width, dtype=dtype, requires_grad=training)
    step(encoder, draw(8 * FIRST), training=training)  # kernels and connections are set up
    seconds, memory, counted = {False: [], True: []}, [], Counted()
    for _ in range(repeat):
        for at_once in (False, True) if overlap else (False,):
            encoder.zero_grad()
            before = _reset_peak()
            counted = Counted(at_once=at_once, link=link)
            with patch.object(dist, "all_to_all_single", counted):
                seconds[at_once].append(step(encoder, draw(share), training=training))
            memory.append(_status("VmHWM") - before)
    plan = AttentionPlan.of(config, (tokens,), execution, shares=shares if size > 1 else None)
    work = work_per_token(config, plan)
    return {
        "rank": rank,
        "tokens": share,
        "seconds": median(seconds[False]),
        **({"seconds_at_once": median(seconds[True])} if overlap else {}),
        "memory": max(memory),
        "memory_predicted": memory_of_rank(config, plan, dtype, training=training),
        "exchanges": counted.calls,
        "bytes": counted.bytes,
        "bytes_predicted": sent_bytes(config, plan, dtype, training=training),
        "forward_gflop": share * config.depth * (work.attention + work.feed_forward) / 1e9,
        "cpu_seconds": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
        "all_seconds": [list(pair) for pair in zip(*filter(None, seconds.values()), strict=True)],
    }


def _reset_peak() -> int:
    """Set the peak of resident memory to the present, and return it, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _serve(rank: int, size: int, store: str, pipe: Any, args: tuple, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
    group = RankGroup(dist.group.WORLD) if size > 1 else None
    pipe.send(measured(group, *args, **options))
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(size: int, *args: object, **options: object) -> list[dict[str, Any]]:
    """Run `measured` on so many processes of one thread, and return the figures of each."""
    context, started = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(size):
            here, there = context.Pipe()
            of_rank = (rank, size, str(Path(folder) / "store"), there, args, options)
            process = context.Process(target=_serve, args=of_rank, daemon=True)
            process.start()
            there.close()
            started.append((process, here))
        found = [pipe.recv() for _, pipe in started]
        for process, _ in started:
            process.join()
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--tokens", type=int, required=True, help="of the whole sequence")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--training", action="store_true", help="a training step; default: a forward pass")
    parser.add_argument("--recompute", choices=["all_but_attention", "blocks"], default="all_but_attention")
    parser.add_argument("--heads-at-once", type=int, default=2)
    parser.add_argument("--tokens-at-once", type=int, default=4096)
    parser.add_argument("--segments", type=int, nargs="+", help="default: 1024, 4096, ... up to the whole sequence")
    parser.add_argument("--ratios", type=int, nargs="+", help="of these segments")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--overlap", action="store_true", help="alternate with steps that wait for every exchange")
    parser.add_argument("--link-ms", type=float, default=0.0, help="shortest time of an exchange, milliseconds")
    a = parser.parse_args()
    config = geometric(a.tokens, width=a.width, heads=a.heads, depth=a.depth)
    if a.segments:
        own = {"segment_lengths": tuple(a.segments), "dilation_ratios": tuple(a.ratios)}
        config = EncoderConfig(**config.model_dump() | own)
    execution = ExecutionConfig(recompute=a.recompute, heads_at_once=a.heads_at_once, tokens_at_once=a.tokens_at_once)
    options = {"training": a.training, "repeat": a.repeat, "overlap": a.overlap, "link": a.link_ms / 1e3}
    for row in on_ranks(a.ranks, config, execution, a.tokens, getattr(torch, a.dtype), **options):
        print(json.dumps({"load": round(os.getloadavg()[0], 1)} | row))


if __name__ == "__main__":
    main()
