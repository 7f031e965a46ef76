"""What pretraining and finetuning share, on a model of one layer."""

import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Sampler

from longvit.config import OptimiserConfig, RunConfig
from longvit.training.loop import TrainingModule, fit, optimiser_groups, pick_device, warmup_cosine

SETTINGS = OptimiserConfig(epochs=10, learning_rate=0.1, min_learning_rate=0.01, warmup_epochs=2.0, weight_decay=0.3)


def rates(settings: OptimiserConfig, steps: int) -> list[float]:
    """The learning rate of each step, and the one after the last."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    schedule = warmup_cosine(optimiser, settings, steps)
    found = []
    for _ in range(steps + 1):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_the_rate_rises_in_a_line_and_falls_along_half_a_cosine():
    found = rates(SETTINGS, 20)
    assert found[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])  # a fifth, two, three, four fifths: never 0
    assert found[4] == pytest.approx(0.1)
    assert found[12] == pytest.approx((0.1 + 0.01) / 2)
    assert found[20] == pytest.approx(0.01)
    assert found[4:] == sorted(found[4:], reverse=True)


def test_without_warmup_the_first_step_has_the_full_rate():
    assert rates(SETTINGS.model_copy(update={"warmup_epochs": 0.0}), 20)[0] == pytest.approx(0.1)


@given(steps=st.integers(1, 60), warmup=st.floats(0, 10))
def test_the_rate_stays_between_0_and_the_learning_rate(steps, warmup):
    found = rates(SETTINGS.model_copy(update={"warmup_epochs": warmup}), steps)
    assert all(0 < rate <= 0.1 + 1e-9 for rate in found)


class Line(TrainingModule):
    """Fits a line through noise; `frozen` takes no gradient."""

    def __init__(self, settings: OptimiserConfig = SETTINGS, seed: int = 0) -> None:
        super().__init__(settings, seed)
        self.line, self.norm, self.frozen = nn.Linear(3, 1), nn.LayerNorm(1), nn.Linear(2, 2).requires_grad_(False)
        self.drop, self.seen = nn.Dropout(0.5), []

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return (self.line(self.drop(batch)) - batch.sum(1, keepdim=True)).pow(2).mean() + self.norm.weight.pow(2).sum()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch[0, 0].item()))
        loss = self.loss(batch)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), batch_size=len(batch))


class Numbers(Sampler[int]):
    """Other numbers in every epoch: k, k + 1 in epoch k."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 2

    def __iter__(self):
        yield from (self.epoch, self.epoch + 1)


def loader(workers: int = 0) -> DataLoader:
    rows = [torch.full((4, 3), float(i)) for i in range(20)]
    return DataLoader(rows, batch_size=None, sampler=Numbers(), num_workers=workers, persistent_workers=workers > 0)


def line(kind: type[Line] = Line) -> Line:
    """A line with the same weights every time, to be fitted for three epochs."""
    torch.manual_seed(0)
    return kind(SETTINGS.model_copy(update={"epochs": 3}))


def fitted(module: Line, folder: Path, *, workers: int = 0, **options) -> Line:
    folder.mkdir(exist_ok=True)
    fit(module, loader(workers), RunConfig(out=folder, device="cpu"), folder, **options)
    return module


def test_matrices_decay_and_vectors_do_not():
    module = Line()
    decay, plain = optimiser_groups(module, SETTINGS)
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert [p is module.line.weight for p in decay["params"]] == [True]
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(plain["params"]) == 3  # the bias, and the norm's two; nothing of what is frozen


def test_parameters_of_one_rate_are_one_group_and_the_highest_rate_comes_first():
    module = Line()
    groups = optimiser_groups(module, SETTINGS, lambda name: {"line.weight": 0.25, "line.bias": 0.5}.get(name, 1.0))
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.0), (0.05, 0.0), (0.025, 0.3)]
    assert groups[1]["params"][0] is module.line.bias
    assert groups[2]["params"][0] is module.line.weight


def test_every_group_has_its_share_of_the_rate_all_along_the_schedule(tmp_path):
    class Slower(Line):
        def rate_of(self, name: str) -> float:
            return 0.5 if name == "line.weight" else 1.0

    module = fitted(line(Slower), tmp_path)
    rates = [group["lr"] for group in module.trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([0.01, 0.005])


def test_the_optimiser_has_the_configured_rate_decay_and_schedule(tmp_path):
    module = fitted(line(), tmp_path)
    optimiser = module.trainer.optimizers[0]
    assert isinstance(optimiser, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.3, 0.0]
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.01)


def test_metrics_have_a_row_for_each_epoch_with_the_rate_and_what_was_logged(tmp_path):
    module = fitted(line(), tmp_path)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics[["epoch", "step"]].to_numpy().tolist() == [[0, 2], [1, 4], [2, 6]]
    assert list(metrics) == ["epoch", "step", "learning_rate", "loss"]
    assert metrics["loss"].notna().all()
    assert [epoch for epoch, _ in module.seen] == [0, 0, 1, 1, 2, 2]
    assert [number for _, number in module.seen] == [0, 1, 1, 2, 2, 3]


class PowerCut(Exception):
    """What ends a fit in the middle."""


class Fragile(Line):
    """Fails in the second epoch."""

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1 and batch_idx == 1:
            raise PowerCut
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("monitor", [None, "val_loss"])
def test_an_interrupted_fit_goes_on_after_its_last_epoch_and_ends_the_same(tmp_path, workers, monitor):
    options = {"monitor": monitor, "val_loader": loader() if monitor else None}
    expected = fitted(line(), tmp_path / "undisturbed", **options).state_dict()
    with pytest.raises(PowerCut):
        fitted(line(Fragile), tmp_path / "cut", **options)
    resumed = fitted(line(), tmp_path / "cut", workers=workers, **options)
    assert resumed.seen == [(1, 1), (1, 2), (2, 2), (2, 3)]
    assert all(torch.equal(resumed.state_dict()[name], expected[name]) for name in expected)
    tables = [(tmp_path / name / "metrics.csv").read_text() for name in ("cut", "undisturbed")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("monitor", [None, "val_loss"])
def test_a_finished_fit_is_not_done_again(tmp_path, monitor):
    options = {"monitor": monitor, "val_loader": loader() if monitor else None}
    expected = fitted(line(), tmp_path, **options).state_dict()
    again = fitted(line(), tmp_path, **options)
    assert again.seen == []
    assert all(torch.equal(again.state_dict()[name], expected[name]) for name in expected)


class Worsening(Line):
    """Is worse on val in every epoch."""

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", float(self.current_epoch), batch_size=len(batch))


class Wavering(Line):
    """Is best on val in the second epoch; a little better than the first."""

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", [3.0, 2.0, 2.5, 2.5, 1.0][self.current_epoch], batch_size=len(batch))


@pytest.mark.parametrize(("patience", "epochs"), [(None, 5), (3, 5), (2, 4), (1, 3)])
def test_a_fit_without_progress_on_val_stops_when_patience_ends_and_stays_stopped(tmp_path, patience, epochs):
    def fit_five() -> Line:
        torch.manual_seed(0)
        options = {"monitor": "val_loss", "val_loader": loader(), "patience": patience}
        return fitted(Wavering(SETTINGS.model_copy(update={"epochs": 5})), tmp_path, **options)

    module, again = fit_five(), fit_five()
    assert sorted({epoch for epoch, _ in module.seen}) == list(range(epochs))
    assert again.seen == []
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == (1 if epochs < 5 else 4)
    for name, weight in best["state_dict"].items():
        assert torch.equal(module.state_dict()[name], weight)
        assert torch.equal(again.state_dict()[name], weight)


@pytest.mark.parametrize("brief", [False, True])
def test_the_weights_to_use_are_those_of_the_epoch_that_is_best_on_val(tmp_path, brief):
    options = {"monitor": "val_loss", "val_loader": loader(), "brief": brief}
    module = fitted(line(Worsening), tmp_path, **options)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 0
    assert all(torch.equal(module.state_dict()[name], best["state_dict"][name]) for name in best["state_dict"])
    assert [epoch for epoch, _ in module.seen] == [0, 0, 1, 1, 2, 2]


def test_a_brief_fit_keeps_no_checkpoint(tmp_path):
    fitted(line(), tmp_path, brief=True)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_random_layers_are_on_in_a_fit_whatever_the_model_was_doing_before(tmp_path):
    assert fitted(line().eval(), tmp_path).training


def test_dropout_depends_on_seed_and_batch_alone():
    module = Line(seed=5)
    module.trainer = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=7))
    drawn = []
    for before in (1, 2):
        torch.manual_seed(before)
        module.on_train_batch_start(None, 0)
        drawn.append(torch.rand(3).tolist())
    module.trainer.fit_loop.total_batch_idx = 8
    module.on_train_batch_start(None, 0)
    assert drawn[0] == drawn[1] != torch.rand(3).tolist()


def test_the_device_is_the_one_asked_for_or_what_there_is():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == (torch.accelerator.current_accelerator(True) or torch.device("cpu")).type


FREED = """
import torch
from longvit.training.loop import keep_freed_memory
keep_freed_memory()
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
before, held = resident(), [torch.ones(2**20) for _ in range(32)]
del held
print(resident() - before)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="only glibc is told")
def test_what_is_freed_stays_for_the_next_step():
    kept = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout
    assert float(kept) > 32 * 2**22 / 1e6 * 0.9
