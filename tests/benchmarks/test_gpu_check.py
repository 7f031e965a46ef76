"""The check of a GPU runs on the CPU with small sizes: the page has all figures, and all that differs, fails or hangs.

One process runs every case. Sections are forked from it, so that they see its changes, and nothing is imported again.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longvit.config import EncoderConfig

HERE = Path(__file__).parent
TESTS = """
import pytest
@pytest.mark.{mark}
def test_one(): assert True
"""
DRIVER = """
import dataclasses, json, os, subprocess, sys, time
from unittest.mock import patch
from pathlib import Path
folder, here = map(Path, sys.argv[1:])
sys.path.insert(0, str(here))
import gpu_check, gpu_ranks, gpu_sections
from longvit.model.kernels import registry
codes, sections = {}, gpu_check.SECTIONS
ranks = sections["ranks"]
assert sum(section.seconds for section in sections.values()) < 8 * 60
assert "test_registry.py" in [file.name for file in gpu_sections.cuda_tests()]

def run(case, *names):
    names = ["--sections", *names] if names else []
    codes[case] = gpu_check.main(["--device", "cpu", "--out", str(folder / f"{case}.md"), *names])

gpu_sections.cuda_tests = lambda: [folder / "test_marked.py"]
run("whole")

def scaled(q, k, v, *, causal):
    out, logsumexp = registry.FLASH_CPU.attend(q, k, v, causal=causal)
    return out * 1.1, logsumexp

real, registry.BACKENDS = registry.BACKENDS, (dataclasses.replace(registry.FLASH_CPU, attend=scaled), registry.MATH)
run("backend", "parity", "machine")
registry.BACKENDS = real

def after_a_line(end):
    def lines(check):
        yield "a first line"
        end()
    return lines

def broken():
    raise RuntimeError("it broke")

def section(name, end, seconds=20.0):
    return sections[name]._replace(lines=after_a_line(end), seconds=seconds)

answer = subprocess.CompletedProcess([], 1, "FAILED test_bad.py::test_one - assert False\\n1 failed in 0.1s\\n", "")
with patch.object(subprocess, "run", lambda *args, **kwargs: answer):
    run("tests", "tests")
sections |= {"layer": section("layer", broken), "encoders": section("encoders", lambda: time.sleep(60), 1.0)}
sections |= {"ranks": section("ranks", lambda: os._exit(3)), "parity": section("parity", lambda: time.sleep(60), 0.3)}
run("ends", "layer", "encoders", "ranks", "machine")
run("late measurement", "encoders")
run("late check", "parity")

def distances(check, group, dtype):
    if ends and group.rank:
        raise RuntimeError("a rank broke")
    return [0.0, 0.0, 0.5 * group.rank, 0.0]

gpu_ranks.distances, gpu_ranks.times, sections["ranks"] = distances, lambda check, group: ["times"], ranks
for ends, case in ((False, "ranks differ"), (True, "a rank breaks")):
    run(case, "ranks")
gpu_check.torch.cuda.is_available = lambda: False
try:
    gpu_check.main(["--device", "cuda", "--out", str(folder / "none.md")])
except SystemExit as end:
    codes["no device"] = end.code
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Case -> exit code and page."""
    folder = tmp_path_factory.mktemp("gpu_check")
    (folder / "test_marked.py").write_text(TESTS.format(mark="cuda"))
    command = [sys.executable, "-c", DRIVER, folder, HERE]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=HERE.parents[1])
    assert run.returncode == 0, run.stderr
    codes = json.loads(run.stdout.splitlines()[-1])
    return {case: (code, page_of(folder / f"{case}.md")) for case, code in codes.items()}


def page_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def outcome(page: str, title: str) -> str:
    """Return the outcome of a section in the table at the head of the page."""
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {title} |"))
    return row.split(" | ")[1]


def test_every_section_is_on_the_page_with_its_figures(cases):
    code, page = cases["whole"]
    assert code == 0, page
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert len(titles) == 6
    assert {outcome(page, title.removeprefix("## ")) for title in titles} == {"done"}
    assert not any(word in page for word in ("DIFFERENT", "FAILED", "skipped", "nan"))
    for text in ("Command:", "torch 2.", "1 passed", "flash_cpu | bfloat16", "efficient_cuda", "LongNetDecoder"):
        assert text in page
    for row in ("| 64 | 24 | forward, backward |", "| longvit_small_32768 | training step |", "Gloo, 2 ranks"):
        assert row in page
    measured = [line.split(" | ")[3] for line in page.splitlines() if line.startswith(("| 64 |", "| gigapath"))]
    assert len(measured) == 4
    assert all(float(seconds) > 0 for seconds in measured)


def test_a_backend_with_other_numbers_makes_the_exit_code_1(cases):
    code, page = cases["backend"]
    assert code == 1
    said = outcome(page, "Parity with float64 on the CPU")
    assert said.startswith("FAILED: 10 of 14 comparisons differ from float64, the first: flash_cpu in float64")
    verdicts = {line.split(" | ")[0]: line.split(" | ")[-1] for line in page.splitlines() if " | float32 | " in line}
    assert verdicts == {"| math": "equal |", **dict.fromkeys(verdicts.keys() - {"| math"}, "**DIFFERENT** |")}
    assert outcome(page, "Machine") == "done"


def test_a_cuda_test_that_fails_makes_the_exit_code_1(cases):
    code, page = cases["tests"]
    assert code == 1
    assert "1 failed" in page
    assert "- FAILED test_bad.py::test_one - assert False" in page


def test_a_section_that_raises_hangs_or_dies_loses_only_itself(cases):
    code, page = cases["ends"]
    assert code == 1
    assert outcome(page, "Attention layer") == "FAILED: RuntimeError: it broke"
    assert outcome(page, "Encoders") == "skipped in part: its 1 s were over"
    assert outcome(page, "One sequence on all devices").endswith("exit code 3")
    assert outcome(page, "Machine") == "done"
    assert page.count("a first line") == 3


def test_ranks_that_differ_or_break_make_the_exit_code_1(cases):
    title = "One sequence on all devices"
    code, page = cases["ranks differ"]
    assert (code, outcome(page, title)) == (1, "FAILED: other numbers than on one device: float64; float32; bfloat16")
    assert page.count("5.0e-01 | 0.0e+00 |") == page.count("DIFFERENT") == 3
    assert "\ntimes\n" in page
    code, page = cases["a rank breaks"]
    assert (code, outcome(page, title)) == (1, "FAILED: RuntimeError: a rank broke")


def test_a_check_that_does_not_end_fails_and_a_measurement_does_not(cases):
    assert (cases["late measurement"][0], cases["late check"][0]) == (0, 1)


def test_without_a_cuda_device_there_is_no_page_and_the_exit_code_is_2(cases):
    assert cases["no device"] == (2, "")


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("gpu_measure", HERE / "gpu_measure.py")
    module = sys.modules["gpu_measure"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_measure"]


def test_useful_work_of_a_layer_is_that_of_its_matrices_and_keys(measure):
    """Of 8 tokens of width 8: matrices 8 x 64, and 4 keys x 4 x 8; twice and 2.5 times as much in a backward pass."""
    config = EncoderConfig(width=8, heads=2, segment_lengths=(4,), dilation_ratios=(1,))
    assert measure.layer_flop(config, 8, backward=False) == 8 * (512 + 128)
    assert measure.layer_flop(config, 8, backward=True) == 8 * (3 * 512 + 3.5 * 128)


def test_useful_work_of_an_encoder_has_no_gradient_of_the_pixels(measure):
    config = EncoderConfig(width=8, heads=2, depth=3, segment_lengths=(4,), dilation_ratios=(1,))
    blocks, pixels = 8 * 3 * (512 + 128 + 4 * 4 * 64), 8 * 2 * 3072 * 8
    assert measure.encoder_flop(config, 8, backward=False) == blocks + pixels
    assert measure.encoder_flop(config, 8, backward=True) == 3 * blocks + 8 * 3 * 128 / 2 + 2 * pixels


def check_of(measure, seconds: float):
    return measure.Check("cpu", measure.SIZES["cpu"], measure.time.monotonic() + seconds)


def test_a_measurement_that_needs_more_than_a_quarter_of_the_time_is_skipped(measure):
    assert measure.attempt(check_of(measure, 100), lambda: list, 30).startswith("skipped: 30 s expected")
    assert measure.attempt(check_of(measure, 200), lambda: list, 30).seconds >= 0
    assert measure.attempt(check_of(measure, -1), lambda: list, 0).startswith("skipped")


@pytest.mark.parametrize(
    ("error", "text"), [(torch.OutOfMemoryError("x"), "skipped: out of memory"), (RuntimeError("x"), "FAILED: x")]
)
def test_what_a_measurement_raises_is_its_result(measure, error, text):
    def build():
        raise error

    assert measure.attempt(check_of(measure, 100), build, 0) == text
