"""Sections of `gpu_check.py` for one device: the machine, tests, parity, the attention layer, encoders."""

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import machine
import torch
from gpu_measure import (
    USEFUL_WORK,
    Check,
    Failed,
    Skipped,
    attempt,
    encoder_flop,
    head,
    layer_flop,
    narrow_dtype,
    row,
)
from longnet_layer import PRESET, our_layer, step, textbook_layer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from longvit.config import PRESETS, EncoderConfig, ExecutionConfig
from longvit.model import LongNetDecoder, LongViT, dilated_attention
from longvit.model.attention.layer import DilatedSelfAttention
from longvit.model.kernels import registry
from longvit.model.kernels.registry import AttentionBackend, TensorKind, kind_of
from longvit.tokens import TokenBatch

ROOT = Path(__file__).parents[2]
TRAINING = ExecutionConfig(recompute="all_but_attention")


def machine_facts(check: Check) -> Iterator[str]:
    """Yield device, driver, versions, date and command."""
    if check.device == "cuda":
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            yield f"- {about.name}, capability {about.major}.{about.minor}, {about.total_memory / 1e9:.0f} GB"
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        yield f"- driver {_driver()}, CUDA {torch.version.cuda}, NCCL {nccl}, torch {torch.__version__}"
    else:
        yield f"- the CPU with small sizes, whose times have no meaning; torch {torch.__version__}"
    for line in machine.describe(("numpy", "torch")):
        yield f"- {line}"


def _driver() -> str:
    if not (command := shutil.which("nvidia-smi")):
        return "unknown (no nvidia-smi)"
    command = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.partition("\n")[0] if found.returncode == 0 else "unknown"


def cuda_tests() -> list[Path]:
    """Return the test files that mark a test as `cuda`."""
    return [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in file.read_text("utf-8")]


def marked_tests(check: Check) -> Iterator[str]:
    """Run the tests marked cuda; without a CUDA device all of them are skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *map(str, cuda_tests())]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=check.left - 2
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"pytest did not end in {error.timeout:.0f} s") from error
    said = run.stdout.splitlines() or run.stderr.splitlines() or ["pytest wrote nothing"]
    yield f"`pytest -m cuda`: {said[-1]}"
    yield from (f"- {line}" for line in said if line.startswith(("FAILED", "ERROR")))
    if run.returncode:
        raise Failed(f"pytest ended with exit code {run.returncode}")
    if check.device == "cuda" and not re.search(r"\d+ passed", said[-1]):
        raise Failed("no test marked cuda has run on this device")


LIMITS = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Largest distance from float64, relative to the size of all numbers of a tensor."""


def distance(found: Tensor, exact: Tensor) -> float:
    """Return the norm of the difference over the norm of the exact numbers; infinity for NaN."""
    exact = exact.double().cpu()
    value = ((found.detach().double().cpu() - exact).norm() / exact.norm()).item()
    return math.inf if math.isnan(value) else value


def parity(check: Check) -> Iterator[str]:
    """Compare every backend, and models on top of them, with plain math in float64 on the CPU."""
    yield "Distances relative to the norm of a tensor; of several calls and tensors the largest."
    yield from head(
        "computation", "type", "head width", "output", "logsumexp", "gradients", "limit", "verdict", texts=2
    )
    wrong, used, count = [], set(), 0
    for name, dtype, width, found in _comparisons(check):
        used.add(name)
        count += 1
        holds = all(value <= LIMITS[dtype] for value in found if value is not None)
        cells = ["" if value is None else f"{value:.1e}" for value in found]
        kind = str(dtype).removeprefix("torch.")
        yield row(name, kind, width, *cells, f"{LIMITS[dtype]:.0e}", "equal" if holds else "**DIFFERENT**")
        wrong += [] if holds else [f"{name} in {kind} with a head width of {width}"]
    idle = [backend.name for backend in registry.BACKENDS if backend.name not in used]
    yield f"\nBackends that take no tensors of this device: {', '.join(idle) or 'none'}."
    if wrong:
        raise Failed(f"{len(wrong)} of {count} comparisons differ from float64, the first: {wrong[0]}")


def _comparisons(check: Check) -> Iterator[tuple[str, torch.dtype, int, tuple[float | None, ...]]]:
    """Yield (computation, type, head width, distances of output, logsumexp and gradients)."""
    for backend, dtype, width in product(registry.BACKENDS, LIMITS, check.sizes.head_widths):
        capability = torch.cuda.get_device_capability() if check.device == "cuda" else (0, 0)
        if backend.takes(TensorKind(check.device, capability, dtype, width)):
            yield backend.name, dtype, width, backend_distances(check, backend, dtype, width)
    for dtype, width in product(LIMITS, check.sizes.head_widths):
        yield "dilated_attention", dtype, width, attention_distances(check, dtype, width)
    config = PRESETS["longvit_tiny"]
    for name in ("LongViT", "LongNetDecoder"):
        yield name, torch.float32, config.width // config.heads, model_distances(check, name, torch.float32)


def backend_distances(check: Check, backend: AttentionBackend, dtype: torch.dtype, width: int) -> tuple[float, ...]:
    """Return the distances of output, logsumexp and gradients: full, causal, and with other keys than queries."""
    length, of_calls = check.sizes.parity_tokens, []
    for causal, keys in ((False, length), (True, length), (False, length // 2)):
        torch.manual_seed(0)
        wide = [torch.randn(2, 3, n, width).to(dtype) for n in (length, length, keys, keys)]
        grad, q, k, v = (x.to(check.device) for x in wide)
        out, logsumexp = backend.attend(q, k, v, causal=causal)
        grads = backend.attend_backward(grad, q, k, v, out.to(dtype), logsumexp, causal=causal)
        grad, q, k, v = (x.double() for x in wide)
        exact = registry.MATH.attend(q, k, v, causal=causal)
        exact += registry.MATH.attend_backward(grad, q, k, v, *exact, causal=causal)
        of_calls.append(list(map(distance, (out, logsumexp, *grads), exact)))
    output, of_logsumexp, *of_grads = map(max, zip(*of_calls, strict=True))
    return output, of_logsumexp, max(of_grads)


def attention_distances(check: Check, dtype: torch.dtype, width: int) -> tuple[float | None, ...]:
    """Return the distances of dilated attention by autograd, full with phantom keys and causal."""
    config, found = PRESETS["longvit_small_1024"], []
    for how in ({"padding": "zero_keys"}, {"causal": True}):
        torch.manual_seed(0)
        inputs = [torch.randn(1, check.sizes.parity_tokens, config.heads, width).to(dtype) for _ in range(3)]

        def computed(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
            leaves = [x.to(device, dtype, copy=True).requires_grad_() for x in inputs]  # noqa: B023
            out = dilated_attention(*leaves, config.segment_lengths, config.dilation_ratios, **how)  # noqa: B023
            out.double().sin().sum().backward()
            return out, torch.cat([x.grad.flatten() for x in leaves])

        found.append(distances_from_exact(computed, check.device, dtype))
    output, grads = map(max, zip(*found, strict=True))
    return output, None, grads


def distances_from_exact(
    computed: Callable[[str, torch.dtype], tuple[Tensor, Tensor]], device: str, dtype: torch.dtype
) -> list[float]:
    """Return the distances between two tensors, computed on the device and by plain math in float64 on the CPU."""
    found = computed(device, dtype)
    with patch.object(registry, "BACKENDS", (registry.MATH,)):
        exact = computed("cpu", torch.float64)
    return list(map(distance, found, exact))


def model_distances(check: Check, name: str, dtype: torch.dtype) -> tuple[float | None, ...]:
    """Return the distances of a small model's output and of the gradient of all its weights.

    Places are sines and cosines in float32, so a comparison in float64 would be of two libraries' sines.
    """
    config = PRESETS["longvit_tiny"].model_copy(update={"drop_path": 0.0, "class_token": name == "LongViT"})
    torch.manual_seed(0)
    model = LongViT(config) if name == "LongViT" else LongNetDecoder(config, 11)
    tokens, symbols = random_batch(config, check.sizes.parity_tokens, "cpu"), torch.randint(11, (2, 99))

    def computed(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        model.to(device, dtype).zero_grad()
        out = model((tokens if name == "LongViT" else symbols).to(device))
        out.double().sin().sum().backward()
        return out, torch.cat([p.grad.flatten() for p in model.parameters()])

    output, grads = distances_from_exact(computed, check.device, dtype)
    return output, None, grads


def attention_layer(check: Check) -> Iterator[str]:
    """Measure LongViT-small's attention layer at several head widths, ours, the textbook's, and dense."""
    dtype, preset = narrow_dtype(check.device), PRESETS[PRESET]
    yield (
        f"{preset.heads} heads, segments {', '.join(map(str, preset.segment_lengths))} and ratios "
        f"{', '.join(map(str, preset.dilation_ratios))}, {str(dtype).removeprefix('torch.')}. Ours keeps only its "
        "input for the backward pass. `textbook.py` makes every branch dense, on the same flash kernel as ours. Dense "
        "is one softmax over all tokens, torch's flash attention. Times are medians; a run of a second or more is "
        f"measured once. GB is the peak that the layer adds to its input and weights. {USEFUL_WORK}"
    )
    failed, sides = [], {"ours": our_layer, "textbook": textbook_layer, "dense": dense_layer}
    columns = [f"{side}, {what}" for side in sides for what in ("s", "TFLOP/s", "GB")]
    yield from head("tokens", "head width", "pass", *columns, "textbook / ours", texts=3)
    pace: dict[tuple, float] = {}
    for tokens, width, backward in product(check.sizes.layer_tokens, check.sizes.head_widths, (False, True)):
        sparse = preset.model_copy(update={"width": width * preset.heads})
        dense = sparse.model_copy(update={"segment_lengths": (tokens,), "dilation_ratios": (1,)})
        cells, seconds = [], {}
        for side, function in sides.items():
            config = dense if side == "dense" else sparse
            flop, key = layer_flop(config, tokens, backward=backward), (side, width, backward)
            if side == "ours" or _has_flash(check.device, dtype, width):
                build = partial(layer_run, check.device, dtype, config, function, tokens, backward)
                cost = attempt(check, build, pace.get(key, 0.0) * flop)
            else:
                cost = "skipped: no flash attention on this device"
            if isinstance(cost, str):
                cells += [cost, "", ""]
                failed += [f"{side} at {tokens:,} tokens"] if cost.startswith("FAILED") else []
            else:
                pace[key], seconds[side] = cost.seconds / flop, cost.seconds
                cells += [f"{cost.seconds:.4f}", f"{flop / cost.seconds / 1e12:.1f}", f"{cost.gb:.2f}"]
        ratio = f"{seconds['textbook'] / seconds['ours']:.2f}" if {"ours", "textbook"} <= set(seconds) else ""
        yield row(f"{tokens:,}", width, "forward, backward" if backward else "forward", *cells, ratio)
    if failed:
        raise Failed(", ".join(failed))


def _has_flash(device: str, dtype: torch.dtype, width: int) -> bool:
    return registry.choose(kind_of(torch.empty(1, 1, 1, width, dtype=dtype, device=device))).name.startswith("flash")


def layer_run(
    device: str, dtype: torch.dtype, config: EncoderConfig, function: Callable[..., Tensor], tokens: int, backward: bool
) -> Callable[[], None]:
    """Return the computation of a layer on random tokens, after a short one that sets up the kernels."""
    torch.manual_seed(0)
    layer = DilatedSelfAttention(config).to(device, dtype)
    x_BLD = torch.randn(1, tokens, config.width, dtype=dtype, device=device, requires_grad=backward)

    def run(x_BLD: Tensor) -> None:
        step(partial(function, layer, config), x_BLD)
        layer.zero_grad()
        x_BLD.grad = None

    run(x_BLD[:, : min(1024, tokens)].detach().requires_grad_(backward))
    return partial(run, x_BLD)


def dense_layer(layer: DilatedSelfAttention, config: EncoderConfig, x_BLD: Tensor) -> Tensor:
    """Return a layer of the same weights whose tokens attend to all tokens, by torch's flash attention."""
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    q, k, v = (proj(x_BLD).unflatten(-1, (config.heads, -1)).transpose(1, 2) for proj in projections)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = scaled_dot_product_attention(q, k, v)
    return layer.out_proj(layer.inner_attn_ln(out.transpose(1, 2).flatten(-2)))


def encoders(check: Check) -> Iterator[str]:
    """Measure LongViT-small and GigaPath's slide encoder in bfloat16, forward and in training."""
    if narrow_dtype(check.device) != torch.bfloat16:
        raise Skipped("this device has no bfloat16")
    yield (
        "One slide of random tokens in bfloat16, already on the device. Forward as `encode --precision bf16`: narrow "
        "matrices, a float32 stream. A training step is forward, backward and AdamW under autocast, with float32 "
        f"weights and `recompute: {TRAINING.recompute}`. GB is the peak that is added to weights, optimiser and tokens."
    )
    yield from head("encoder", "pass", "tokens", "s", "tokens/s", "TFLOP/s", "GB", texts=2)
    pace: dict[tuple, float] = {}
    failed, presets = [], ("longvit_small_32768", "gigapath_slide_enc12l768d")
    for tokens, preset, training in product(check.sizes.encoder_tokens, presets, (False, True)):
        config = PRESETS[preset]
        config = config.model_copy(update={"depth": check.sizes.encoder_depth or config.depth})
        flop, key = encoder_flop(config, tokens, backward=training), (preset, training)
        build = partial(training_run if training else forward_run, check.device, config, tokens)
        cost = attempt(check, build, pace.get(key, 0.0) * flop)
        cells = [cost, "", "", ""]
        if isinstance(cost, str):
            failed += [f"{preset} at {tokens:,} tokens"] if cost.startswith("FAILED") else []
        else:
            pace[key] = cost.seconds / flop
            speed = f"{tokens / cost.seconds:,.0f}", f"{flop / cost.seconds / 1e12:.1f}"
            cells = [f"{cost.seconds:.3f}", *speed, f"{cost.gb:.2f}"]
        yield row(preset, "training step" if training else "forward", f"{tokens:,}", *cells)
    if failed:
        raise Failed(", ".join(failed))


def random_batch(config: EncoderConfig, tokens: int, device: str) -> TokenBatch:
    """Return one slide of random tokens, row after row of a square grid."""
    side = int(tokens**0.5)
    rc_L2 = torch.stack([torch.arange(tokens) // side, torch.arange(tokens) % side], dim=1)
    if config.input.kind == "pixels":
        x_LP = torch.randint(256, (tokens, config.input.width), dtype=torch.uint8, device=device)
    else:
        x_LP = torch.randn(tokens, config.input.width, dtype=torch.float16, device=device)
    return TokenBatch.of_one(x_LP, rc_L2.to(device)).to(device)


def forward_run(device: str, config: EncoderConfig, tokens: int) -> Callable[[], object]:
    """Return the forward pass of an encoder, after a short one."""
    encoder = LongViT(config).narrowed(torch.bfloat16).to(device).eval()

    @torch.inference_mode()
    def run(batch: TokenBatch) -> Tensor:
        return encoder.encode(encoder.embed(batch), overwrite=True).slide_BD

    run(random_batch(config, min(1024, tokens), device))
    return partial(run, random_batch(config, tokens, device))


def training_run(device: str, config: EncoderConfig, tokens: int) -> Callable[[], object]:
    """Return a training step of an encoder, after a short one."""
    encoder: nn.Module = LongViT(config).to(device).train()
    encoder.execution = TRAINING
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-6)

    def run(batch: TokenBatch) -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = encoder.represent(batch).float().square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    run(random_batch(config, min(1024, tokens), device))
    return partial(run, random_batch(config, tokens, device))
