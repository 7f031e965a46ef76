"""Sizes, times, memory and useful work of `gpu_check.py`."""

import gc
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from longvit.config import EncoderConfig
from longvit.model.attention.plan import AttentionPlan
from longvit.model.cost import work_per_token

START = {"cuda": "spawn", "cpu": "fork"}
"""Start of the processes. CUDA does not survive a fork; a fork is faster, since it imports nothing again."""


class Skipped(Exception):
    """Reason why a section does not fit the device, its memory or the time."""


class Failed(Exception):
    """Checks that did not hold."""


@dataclass(frozen=True)
class Sizes:
    """Amounts of work for one kind of device."""

    parity_tokens: int
    """Queries of the kernels, and tokens of the models."""
    head_widths: tuple[int, ...]
    """Head widths K of the kernels and of the attention layer."""
    layer_tokens: tuple[int, ...]
    """Lengths of the attention layer."""
    encoder_tokens: tuple[int, ...]
    """Lengths of the encoders."""
    encoder_depth: int | None
    """Blocks of the encoders; None for the preset's."""
    shared_tokens: int
    """Tokens of the sequence that is timed on all devices."""
    repetitions: int
    """Most repetitions of a measurement; a second in all is enough."""


SIZES = {
    "cuda": Sizes(
        parity_tokens=521,
        head_widths=(24, 64, 128),
        layer_tokens=(65_536, 262_144, 1_048_576),
        encoder_tokens=(65_536, 262_144, 1_048_576),
        encoder_depth=None,
        shared_tokens=262_144,
        repetitions=5,
    ),
    "cpu": Sizes(
        parity_tokens=67,
        head_widths=(24,),
        layer_tokens=(64,),
        encoder_tokens=(32,),
        encoder_depth=1,
        shared_tokens=128,
        repetitions=1,
    ),
}


@dataclass(frozen=True)
class Check:
    """Circumstances of a section."""

    device: str
    """Type of the device: cuda or cpu."""
    sizes: Sizes
    """Amounts of work."""
    until: float
    """Time at which the section's process is ended, `time.monotonic`."""

    @property
    def left(self) -> float:
        """Seconds that are left to the section."""
        return self.until - time.monotonic()


@dataclass(frozen=True)
class Cost:
    """Measured cost of a computation."""

    seconds: float
    """Median duration."""
    gb: float
    """Peak of the memory that the computation adds, 10^9 bytes."""


def attempt(check: Check, build: Callable[[], Callable[[], object]], expected: float) -> Cost | str:
    """Return the cost of a computation, or the reason why there is none, which begins with `skipped` or `FAILED`.

    A computation may take a quarter of the time that is left, so that one cannot use up the time of all others.

    Args:
        check: Circumstances of the section.
        build: Function that allocates inputs, warms up, and returns the computation.
        expected: Seconds that the computation will take, from a smaller computation; 0 if there is none.
    """
    if expected > check.left / 4:
        return f"skipped: {expected:.0f} s expected, {max(0, check.left):.0f} s left"
    try:
        return _cost(check, build())
    except torch.OutOfMemoryError:
        return "skipped: out of memory"
    except RuntimeError as error:
        traceback.print_exc()
        return f"FAILED: {' '.join(str(error).split())[:200]}"
    finally:
        gc.collect()
        if check.device == "cuda":
            torch.cuda.empty_cache()


def _cost(check: Check, run: Callable[[], object]) -> Cost:
    before = _memory(check.device)
    if check.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = [seconds_of(run, check.device)]
    if times[0] < 1.0 and check.sizes.repetitions > 1:  # a short run also measures the first allocations
        times = [seconds_of(run, check.device)]
    while len(times) < check.sizes.repetitions and sum(times) < 1.0:
        times.append(seconds_of(run, check.device))
    return Cost(median(times), (_peak(check.device) - before) / 1e9)


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Return the duration of a computation, on a CUDA device between two events of its stream."""
    if device == "cpu":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def _memory(device: str) -> int:
    return torch.cuda.memory_allocated() if device == "cuda" else _peak(device)


def _peak(device: str) -> int:
    """Return the peak of allocated memory, bytes; on the CPU of the resident memory, which does not fall."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


USEFUL_WORK = (
    "Useful work, the same for every implementation: 4 D multiplications and additions per key that a query attends to "
    "(`AttentionPlan.keys_per_query`), and 2 per weight of every matrix (`longvit/model/cost.py`). A backward pass "
    "counts 2.5 times the attention of the forward pass, because flash attention computes the logits again, and twice "
    "the matrices. What `recompute` computes again is not counted."
)
"""Sentence of the page on its TFLOP/s."""


def layer_flop(config: EncoderConfig, tokens: int, *, backward: bool) -> float:
    """Return the useful work of an attention layer, forward, or forward and backward."""
    plan = AttentionPlan.of(config, (tokens,))
    forward, core = work_per_token(config, plan).attention, 4 * config.width * plan.keys_per_query
    return tokens * (3 * forward + core / 2 if backward else forward)


def encoder_flop(config: EncoderConfig, tokens: int, *, backward: bool) -> float:
    """Return the useful work of an encoder, forward, or forward and backward; pixels need no gradient."""
    sequence = tokens + config.class_token
    plan = AttentionPlan.of(config, (sequence,))
    work = work_per_token(config, plan)
    forward = work.of_slide(tokens, config)
    core = sequence * config.depth * 4 * config.width * plan.keys_per_query
    return 3 * forward - tokens * work.embedding + core / 2 if backward else forward


def narrow_dtype(device: str) -> torch.dtype:
    """Return bfloat16, or float16 on a CUDA device without bfloat16 in its tensor cores."""
    old = device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if old else torch.bfloat16


def row(*cells: object) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*columns: str, texts: int) -> list[str]:
    """Return an empty line and the head of a Markdown table whose first columns are texts, the others numbers."""
    return ["", row(*columns), row(*["---"] * texts, *["---:"] * (len(columns) - texts))]
