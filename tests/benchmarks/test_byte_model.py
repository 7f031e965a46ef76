"""The language model of bytes is measured fairly: on unseen files, on the same bytes with every context."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from longvit.model.rank_group import RankGroup

SOURCE = Path(__file__).with_name("byte_model_training.py")
SPEC = importlib.util.spec_from_file_location("byte_model_training", SOURCE)
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)
LENGTHS = [1024, 256]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return script.library()


def pieces(content: bytes) -> set[bytes]:
    """Return what a file contains between empty lines, if it is long enough not to be there by chance."""
    return {piece for piece in content.split(b"\n\n") if len(piece) > 1000}


def test_no_package_is_both_in_training_and_held_out(files):
    training, held_out = script.split(files)
    packages = [{name.partition("/")[0] for name in side} for side in (training, held_out)]
    assert not packages[0] & packages[1]
    assert {**training, **held_out}.keys() == files.keys()
    assert sum(map(len, held_out.values())) > 300_000


def test_no_bytes_that_are_held_out_are_in_training(files):
    training, held_out = script.split(files)
    seen, unseen = (set().union(*(pieces(files[name]) for name in side)) for side in (training, held_out))
    assert len(unseen) > 50
    assert not seen & unseen


def test_rows_are_bytes_of_one_file_and_reach_its_ends(files):
    file = torch.arange(40, dtype=torch.uint8)
    rows = torch.cat([script.Rows([file]).draw(38) for _ in range(4)])
    assert rows.shape[1] == 39
    assert (rows.diff(dim=1) == 1).all()
    assert set(rows[:, 0].tolist()) == {0, 1}


class Frequencies:
    """A model that knows how frequent each byte is, and nothing else."""

    group = None

    def __init__(self) -> None:
        self.given: list[int] = []
        self.logits = torch.randn(256, generator=torch.Generator().manual_seed(0))

    def __call__(self, symbols: torch.Tensor) -> torch.Tensor:
        self.given.append(symbols.shape[1])
        return self.logits.expand(*symbols.shape, 256)


def test_every_context_has_the_same_targets():
    model, windows = Frequencies(), script.windows([torch.randint(256, (20_000,), dtype=torch.uint8)], 3)
    found = script.evaluate(model, windows)
    assert sorted(set(model.given)) == list(script.CONTEXTS)
    of_bytes = -model.logits.log_softmax(0)[windows[:, -script.TARGETS :]].mean(1) / math.log(2)
    assert list(found) == [*map(str, script.CONTEXTS), script.FOREIGN]
    for bits in found.values():
        assert_close(torch.tensor(bits), of_bytes)


def test_the_control_has_the_near_bytes_of_its_window_and_the_far_bytes_of_another(monkeypatch):
    windows, given = torch.randint(256, (3, 16385)), []
    monkeypatch.setattr(script, "bits_per_byte", lambda _, rows, *more: given.append(rows) or torch.zeros(1))
    script.evaluate(Frequencies(), windows)
    control, whole = torch.cat(given[-3:]), torch.cat(given[-6:-3])
    assert (whole == windows).all()
    assert (control[:, -4097:] == windows[:, -4097:]).all()
    assert (control[:, :-4097] == windows[[2, 0, 1], :-4097]).all()


@pytest.mark.parametrize("distance", [300, 301, 2000, 2001])
def test_the_untrained_model_copies_what_has_followed_the_same_bytes(distance):
    once = torch.randint(32, 127, (1, distance), generator=torch.Generator().manual_seed(1))
    model = script.build(None)
    with torch.inference_mode():
        first, again = (script.bits_per_byte(model, rows, 200, None) for rows in (once, torch.cat([once, once], 1)))
    assert again < first - 0.5


@pytest.mark.parametrize(("fall", "words"), [(0.2, "falls"), (0.01, "does not fall")])
def test_the_page_states_whether_the_loss_falls(fall, words, tmp_path):
    noise = [0.0, 0.01, -0.01]
    bits = {str(length): [2 - fall * i / 3 + x * i for x in noise] for i, length in enumerate(script.CONTEXTS)}
    bits[script.FOREIGN] = [2.5 + 3 * x for x in noise]
    step = {"bits": 2.0, "seconds": 1.0, "processor": 1.0}
    log = [step | {"length": length, "bytes": max(2048, length)} for length in script.CONTEXTS * 3]
    about = script.described(script.build(None), *script.split(script.library()))
    result = {"log": log, "about": about, "bits": bits}
    for mode in ("one process", "one process, two threads", "two ranks"):
        for name in ("turns 0", "trained"):
            (tmp_path / f"{mode}, {name}.json").write_text(json.dumps(result))
    command = [sys.executable, SOURCE.with_name("byte_model.py"), "--results", tmp_path, "--out", tmp_path / "page.md"]
    subprocess.run(list(map(str, command)), check=True)
    page = (tmp_path / "page.md").read_text()
    assert f"**The loss {words} with the context**: its fall from 256 to 16,384 bytes is {fall:.3f} ±" in page
    assert f"The loss of the control is {0.5 + fall:.3f} ± 0.000 above that of 16,384 bytes" in page
    assert page.count("| 2.000 |  |") == 1


def test_only_the_last_bytes_are_scored():
    rows = torch.randint(256, (2, 101))
    logits = torch.zeros(2, 100, 256).scatter(2, rows[:, 1:, None], 1e4)  # certain of every byte
    logits[:, :90] = logits[:, :90].flip(2)
    assert script.bits_per_byte(lambda _: logits, rows, 10, None).tolist() == [0, 0]
    assert (script.bits_per_byte(lambda _: logits, rows, 11, None) > 100).all()


def steps(group: RankGroup | None, file: torch.Tensor) -> tuple[list[float], list[torch.Tensor], dict]:
    """Return the losses of some steps, the weights after them, and the bits of held-out windows."""
    decoder = script.build(group).double()
    log = script.train(decoder, script.Rows([file]), LENGTHS)
    bits = script.bits_per_byte(decoder, file[None, :257].long(), script.TARGETS, group)
    return [step["bits"] for step in log], [p.detach() for p in decoder.parameters()], bits.detach()


def test_two_ranks_train_as_one_process(ranks):
    torch.manual_seed(0)
    file = torch.randint(97, 123, (5000,), dtype=torch.uint8)
    losses, weights, bits = steps(None, file)
    assert min(losses) > 3
    for found in ranks(2, steps, file):
        assert_close(found[0], losses, atol=1e-12, rtol=1e-12)
        assert_close(found[1], weights, atol=1e-7, rtol=1e-7)  # Adam divides a gradient by its own size
        assert_close(found[2], bits, atol=1e-7, rtol=1e-7)
