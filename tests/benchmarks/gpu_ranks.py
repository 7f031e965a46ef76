"""Section of `gpu_check.py` on one sequence that all devices hold together, by NCCL, or by Gloo on the CPU."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from gpu_measure import START, Check, Failed, Skipped, head, narrow_dtype, row, seconds_of
from gpu_sections import LIMITS, TRAINING, distance
from longnet_layer import PRESET
from torch import Tensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes

from longvit.config import PRESETS, EncoderConfig
from longvit.model import LongViT
from longvit.model.rank_group import RankGroup


def shallow(preset: str, check: Check) -> EncoderConfig:
    """Return a preset with two blocks, which contain all of the exchange, and without drop path."""
    return PRESETS[preset].model_copy(update={"depth": check.sizes.encoder_depth or 2, "drop_path": 0.0})


def ranks(check: Check) -> Iterator[str]:
    """Cut one sequence over all devices: parity with one device, time, and bytes that travel."""
    count = torch.cuda.device_count() if check.device == "cuda" else 2
    backend = "NCCL" if check.device == "cuda" else "Gloo"
    alone = " No keys travel with one device: **NCCL was run with a single rank only.**" if count == 1 else ""
    yield f"{backend}, {count} {'rank' if count == 1 else 'ranks'}, one device each.{alone}"
    folder, queue = Path(tempfile.mkdtemp(prefix="gpu_ranks")), get_context(START[check.device]).SimpleQueue()
    ended = None
    try:
        processes = start_processes(
            rank_main, (count, folder / "store", check, queue), count, join=False, start_method=START[check.device]
        )
        while not processes.join(timeout=max(0.1, check.left - 1), grace_period=1):
            if check.left <= 2:
                ended = Failed(f"not all of the {count} ranks ended in time")
                break
    except (ProcessRaisedException, ProcessExitedException) as error:
        reason = str(error).strip().splitlines()[-1]
        ended = Skipped("out of memory") if "OutOfMemoryError" in reason else Failed(reason)
    shutil.rmtree(folder)
    found = []
    while not queue.empty():
        found.append(queue.get())
        yield from found[-1][0]
    if wrong := [kind for _, kinds in found for kind in kinds]:
        raise Failed(f"other numbers than on one device: {'; '.join(wrong)}")
    if ended:
        raise ended if found else Failed(str(ended))


def rank_main(rank: int, count: int, store: Path, check: Check, queue: object) -> None:
    """Compute as one rank; the first sends (lines of the page, comparisons that failed), then the lines on time."""
    how = {"store": dist.FileStore(str(store), count), "rank": rank, "world_size": count}
    how["timeout"] = timedelta(seconds=max(1.0, check.left))
    if check.device == "cuda":
        torch.cuda.set_device(rank)
        dist.init_process_group("nccl", device_id=torch.device("cuda", rank), **how)
    else:
        torch.set_num_threads(1)
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", **how)
    group, wrong = RankGroup(dist.group.WORLD), []
    lines = head("type", "tokens", "slide", "gradient of the input", "of the weights", "limit", "verdict", texts=1)
    for dtype in (torch.float64, torch.float32, narrow_dtype(check.device)):
        found = group.max(torch.tensor(distances(check, group, dtype), device=check.device)).tolist()
        limit, kind = 2 * LIMITS[dtype], str(dtype).removeprefix("torch.")  # both sides are rounded
        holds = all(value <= limit for value in found)
        cells = [f"{value:.1e}" for value in found]
        lines.append(row(kind, *cells, f"{limit:.0e}", "equal" if holds else "**DIFFERENT**"))
        wrong += [] if holds else [kind]
    send = queue.put if rank == 0 else lambda _: None
    send((lines, wrong))
    send((times(check, group), []))
    dist.destroy_process_group()


def distances(check: Check, group: RankGroup, dtype: torch.dtype) -> list[float]:
    """Return the distances between the group's and one device's tokens, slide, and gradients, on this rank's share."""
    config, length = shallow("longvit_small_1024", check), check.sizes.parity_tokens
    one, of_group = (outputs(check, config, length, dtype, on) for on in (None, group))
    for x in of_group[2:]:
        x /= group.size
    of_group[3] = group.sum(of_group[3])
    share = lambda x: x.tensor_split(group.size, dim=1)[group.rank]
    exact = [share(one[0]), one[1], share(one[2]), one[3]]
    return [distance(found, true) for found, true in zip(of_group, exact, strict=True)]


def outputs(
    check: Check, config: EncoderConfig, length: int, dtype: torch.dtype, group: RankGroup | None
) -> list[Tensor]:
    """Return tokens, slide vector, gradient of the input, and gradients of all weights as one vector."""
    encoder, x_BLD = build(check, config, length, group, dtype)
    tokens_BLD, slide_BD = encoder.encode(x_BLD.requires_grad_())
    of_tokens = tokens_BLD.double().cos().sum()
    loss = (of_tokens if group is None else group.sum(of_tokens)) + slide_BD.double().sin().sum()
    loss.backward()
    grads = [p.grad.flatten() for p in encoder.parameters() if p.grad is not None]
    return [x.detach().double() for x in (tokens_BLD, slide_BD, x_BLD.grad, torch.cat(grads))]


def build(
    check: Check, config: EncoderConfig, length: int, group: RankGroup | None, dtype: torch.dtype = torch.float32
) -> tuple[LongViT, Tensor]:
    """Return an encoder and embedded tokens, of which a rank of a group has its share; the same on every rank."""
    torch.manual_seed(0)
    encoder = LongViT(config).to(check.device, dtype)
    encoder.group, encoder.execution = group, TRAINING
    x_BLD = torch.randn(1, length, config.width)
    x_BLD = x_BLD if group is None else x_BLD.tensor_split(group.size, dim=1)[group.rank]
    return encoder, x_BLD.to(check.device, dtype)


def times(check: Check, group: RankGroup) -> list[str]:
    """Return the lines on time, and on bytes that travel, of a longer sequence."""
    config, length = shallow(PRESET, check), check.sizes.shared_tokens
    dtype = narrow_dtype(check.device)
    alone, together = (step_of(check, *build(check, config, length, on), dtype) for on in (None, group))
    encoder, x_BLD = build(check, config, length, group)
    own, width = x_BLD.shape[1], config.width // config.heads
    # Keys and values of this rank in all layers, in bytes; dense ones would go to every other rank.
    sent = torch.tensor([encoder.plan(x_BLD).sent_tokens, own * config.heads * (group.size - 1)], device=check.device)
    kept_mb, dense_mb = (group.max(sent) * 2 * width * dtype.itemsize * config.depth / 1e6).tolist()
    lines = [
        "",
        f"{length:,} random tokens, LongViT-small for 32,768 pixels with a depth of {config.depth}, "
        f"{str(dtype).removeprefix('torch.')} under autocast; medians, of the slowest rank. MB is what a rank sends at "
        "most, by its plan; in a training step keys and values travel twice, and their gradients once.",
        *head("pass", "s, one device", "s, all devices", "MB sent", "MB of dense keys and values", texts=1),
    ]
    for training, sends in ((False, 1), (True, 3)):
        seconds = [
            median(group.max(torch.tensor(run(training), device=check.device)).tolist()) for run in (alone, together)
        ]
        cells = [f"{value:.4f}" for value in seconds] + [f"{mb * sends:.2f}" for mb in (kept_mb, dense_mb)]
        lines.append(row("forward, backward" if training else "forward", *cells))
    return lines


def step_of(check: Check, encoder: LongViT, x_BLD: Tensor, dtype: torch.dtype) -> Callable[[bool], list[float]]:
    """Return a function that measures a pass, forward or forward and backward, after one that is not counted."""

    def run(training: bool) -> None:
        with torch.autocast(check.device, dtype), torch.set_grad_enabled(training):
            loss = encoder.encode(x_BLD).slide_BD.float().square().mean()
        if training:
            loss.backward()
            encoder.zero_grad()

    def measured(training: bool) -> list[float]:
        found = []
        for _ in range(1 + check.sizes.repetitions):
            dist.barrier()
            found.append(seconds_of(lambda: run(training), check.device))
        return found[1:]

    return measured
