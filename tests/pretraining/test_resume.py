"""Law: a run that is killed goes on as if nothing had happened, whatever moment it was killed in."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longvit.config import PretrainConfig, ProbeConfig
from longvit.config.yaml_files import to_yaml
from longvit.pretraining.pretrain import run
from longvit.pretraining.pretrain_module import PretrainModule

RUN = """
import os, signal, sys
from pathlib import Path
import torch
from longvit.config import PretrainConfig
from longvit.pretraining.pretrain_module import PretrainModule
from longvit.pretraining.pretrain import run
from longvit.config.yaml_files import load_yaml
torch.set_num_threads(1)
settings, losses, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
step = PretrainModule.training_step
def written(module, views, batch_idx):
    if module.global_step == last:
        os.kill(os.getpid(), signal.SIGKILL)
    loss = step(module, views, batch_idx)
    with losses.open("a") as file:
        file.write(f"{module.global_step} {loss.item().hex()}\\n")
    return loss
PretrainModule.training_step = written
run(load_yaml(settings, PretrainConfig))
"""
"""Runs a config, writes down the loss of every step to the last bit, and kills itself in step `last`."""

SAVE = """
import io, os, signal, sys
import torch
from pathlib import Path
from longvit.training.callbacks import SafeCheckpoints
save = torch.save
def half(checkpoint, file):
    whole = io.BytesIO()
    save(checkpoint, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
path = Path(sys.argv[1])
SafeCheckpoints().save_checkpoint({"epoch": 1, "weights": torch.ones(9)}, path)
torch.save = half
SafeCheckpoints().save_checkpoint({"epoch": 2, "weights": torch.ones(9)}, path)
"""
"""Saves a checkpoint, and is killed half-way through the next one."""


def python(code: str, *arguments: object) -> int:
    """Run code in a process of its own; its exit status."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def losses(path: Path) -> dict[int, str]:
    """Loss of each step; of a step that was done twice, the last one."""
    return {int(step): loss for step, loss in (line.split() for line in path.read_text().splitlines())}


def undisturbed(config: PretrainConfig, out: Path, monkeypatch) -> dict[int, str]:
    """Run without a break, here; the loss of every step."""
    step, found = PretrainModule.training_step, {}

    def written(module, views, batch_idx):
        loss = step(module, views, batch_idx)
        found[module.global_step] = loss.item().hex()
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "training_step", written)
        run(config.model_copy(update={"out": out}))
    return found


@pytest.mark.parametrize(
    "kind", ["dino", pytest.param("moco", marks=pytest.mark.slow), pytest.param("masked", marks=pytest.mark.slow)]
)
def test_a_run_killed_in_the_middle_of_an_epoch_has_the_losses_of_the_undisturbed_one(
    kind, config, objectives, cohort, tmp_path, monkeypatch
):
    views = config.views.model_copy(update={"local_views": 0 if kind == "moco" else 2})
    probe = ProbeConfig(table=cohort.table, every=1, folds=3, neighbours=3)
    config = config.model_copy(update={"objective": objectives[kind], "views": views, "probe": probe})
    expected = undisturbed(config, tmp_path / "undisturbed", monkeypatch)
    assert len(expected) == 6  # three epochs of two batches
    settings, written = tmp_path / "settings.yaml", tmp_path / "losses.txt"
    settings.write_text(to_yaml(config))
    assert python(RUN, settings, written, 3) == -signal.SIGKILL  # the second step of the second epoch
    assert losses(written) == {step: expected[step] for step in (0, 1, 2)}
    assert not (config.out / "encoder.safetensors").exists()
    assert losses_of_resumed(config, monkeypatch) == {step: expected[step] for step in (2, 3, 4, 5)}
    for name in ("encoder.safetensors", "metrics.csv", "notes.txt"):
        assert (config.out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name


def losses_of_resumed(config: PretrainConfig, monkeypatch) -> dict[int, str]:
    """Go on, here; the losses of the steps that were done."""
    return undisturbed(config, config.out, monkeypatch)


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert python(SAVE, path) == -signal.SIGKILL
    assert len(list(path.parent.iterdir())) == 2  # what was cut short lies beside it, under another name
    assert torch.load(path, weights_only=True)["epoch"] == 1


class PowerCut(Exception):
    """What ends a save in the middle."""


def test_a_run_cut_off_while_it_saves_goes_on_from_the_last_good_checkpoint(config, tmp_path, monkeypatch):
    expected = undisturbed(config, tmp_path / "undisturbed", monkeypatch)
    save = torch.save

    def failing(checkpoint, file):
        if checkpoint["epoch"] == 1:
            file.write(b"PK\x03\x04 half a file")
            raise PowerCut
        save(checkpoint, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing)
        with pytest.raises(PowerCut):
            run(config)
    last = config.out / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0
    assert losses_of_resumed(config, monkeypatch) == {step: expected[step] for step in (2, 3, 4, 5)}
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]  # what was cut short is written over
