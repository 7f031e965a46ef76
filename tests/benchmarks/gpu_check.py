"""Check of a CUDA machine in under eight minutes, written as one Markdown page: tests, parity, speed, memory, ranks.

    python tests/benchmarks/gpu_check.py --device cuda --out build/gpu_check.md

Every section has its own process and a limit in seconds, so that a kernel that fails, hangs or runs out of memory costs
its own section only. The page is written again after each section. The exit code is 1 if a check fails, or does not end
in its time, and 2 without a CUDA device. `--device cpu` tries all of it with small sizes, whose times have no meaning.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_measure import SIZES, START, Check, Failed, Skipped
from gpu_ranks import ranks
from gpu_sections import attention_layer, encoders, machine_facts, marked_tests, parity

ROOT = Path(__file__).parents[2]


class Section(NamedTuple):
    """Part of the page."""

    title: str
    """Heading on the page."""
    seconds: float
    """Limit, with the start of the process; the sum of all limits is below eight minutes."""
    is_check: bool
    """True if the section must end for the whole to pass; other sections only measure."""
    lines: Callable[[Check], Iterator[str]]
    """Function that yields the lines of the section as it goes; it raises `Failed` or `Skipped` with a sentence."""


SECTIONS = {
    "machine": Section("Machine", 25, False, machine_facts),
    "tests": Section("Tests marked cuda", 100, True, marked_tests),
    "parity": Section("Parity with float64 on the CPU", 50, True, parity),
    "layer": Section("Attention layer", 145, False, attention_layer),
    "encoders": Section("Encoders", 85, False, encoders),
    "ranks": Section("One sequence on all devices", 70, True, ranks),
}
"""Sections by name, in the order of the page."""


class Result(NamedTuple):
    """Section that was run."""

    section: Section
    lines: list[str]
    """Lines of the section, up to where it ended."""
    outcome: str
    """`done`, or a sentence that begins with `skipped` or `FAILED`."""
    seconds: float
    """Duration, with the start of the process."""

    @property
    def failed(self) -> bool:
        """True if the outcome makes the exit code 1."""
        return self.outcome.startswith("FAILED")


def run_section(section: Section, device: str) -> Result:
    """Run a section in its own process, and end this process and its children after the section's time."""
    start = time.monotonic()
    check = Check(device, SIZES[device], until=start + section.seconds)
    context = multiprocessing.get_context(START[device])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=send_lines, args=(section, check, there))
    process.start()
    there.close()
    lines, outcome = [], ""
    try:
        while not outcome and here.poll(max(0.0, check.left)):
            line, outcome = here.recv()
            lines += [] if outcome else [line]
        late = f"its {section.seconds:.0f} s were over"
        outcome = outcome or (f"FAILED: {late}" if section.is_check else f"skipped in part: {late}")
    except EOFError:
        process.join()
        outcome = f"FAILED: the process ended without a word, exit code {process.exitcode}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    return Result(section, lines, outcome, time.monotonic() - start)


def send_lines(section: Section, check: Check, pipe: Connection) -> None:
    """Send (line, "") for each line of a section, then ("", outcome)."""
    os.setsid()
    try:
        for line in section.lines(check):
            pipe.send((line, ""))
        outcome = "done"
    except Skipped as error:
        outcome = f"skipped: {error}"
    except torch.OutOfMemoryError:
        outcome = f"{'FAILED' if section.is_check else 'skipped in part'}: out of memory"
    except Failed as error:
        outcome = f"FAILED: {error}"
    except Exception as error:
        traceback.print_exc()
        outcome = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[-400:]}"
    pipe.send(("", outcome))


def page(results: Sequence[Result]) -> str:
    """Return the text of the page."""
    summary = [f"| {one.section.title} | {one.outcome} | {one.seconds:.0f} |" for one in results]
    parts = [
        "# LongViT, checked on a device",
        "Written by `tests/benchmarks/gpu_check.py`.",
        "\n".join(["| section | outcome | s |", "|---|---|---:|", *summary]),
    ]
    for section, lines, outcome, _ in results:
        parts += [f"## {section.title}", "\n".join(lines)] + ([] if outcome == "done" else [f"**{outcome}**"])
    return "\n\n".join(filter(None, parts)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=list(SIZES), default="cuda", help="cpu tries all of it with small sizes")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu_check.md")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    a = parser.parse_args(arguments)
    if a.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; DEVICE=cpu tries the check with small sizes")
    a.out.parent.mkdir(parents=True, exist_ok=True)
    results = []
    for name in a.sections:
        print(f"{SECTIONS[name].title} ...", file=sys.stderr)
        results.append(run_section(SECTIONS[name], a.device))
        print(f"    {results[-1].outcome}, {results[-1].seconds:.0f} s", file=sys.stderr)
        a.out.write_text(page(results), encoding="utf-8")
    print(a.out)
    return int(any(one.failed for one in results))


if __name__ == "__main__":
    sys.exit(main())
