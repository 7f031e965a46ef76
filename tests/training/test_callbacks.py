"""What a training run leaves on disk, on a model of one weight."""

import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from longvit.config import OptimiserConfig, RunConfig
from longvit.training import callbacks as records
from longvit.training.callbacks import (
    EpochBar,
    LoaderWaitProfiler,
    Meter,
    MetricsFile,
    NotesFile,
    SafeCheckpoints,
    TimingFile,
)
from longvit.training.loop import TrainingModule, fit


class Weight(TrainingModule):
    """Makes one weight small."""

    def __init__(self, epochs: int = 3) -> None:
        super().__init__(OptimiserConfig(epochs=epochs, learning_rate=0.1), 0)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.log("loss", loss := self.weight.pow(2).sum(), on_step=False, on_epoch=True, batch_size=1)
        return loss


class EverySecond(Meter):
    """Measures before the first step and in every second epoch."""

    def __init__(self) -> None:
        self.measured = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.measured = {"found": 9.0}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.measured = {"found": float(trainer.current_epoch)} if trainer.current_epoch % 2 else {}


class InOrder(SequentialSampler):
    """The same in every epoch."""

    def set_epoch(self, epoch: int) -> None:
        pass


@pytest.fixture
def trainer() -> pl.Trainer:
    """A trainer that does nothing."""
    return pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")


def fitted(folder: Path, epochs: int = 3, **options) -> Weight:
    rows = [torch.zeros(1)] * 4
    loader = DataLoader(rows, batch_size=2, sampler=InOrder(rows))
    module = Weight(epochs)
    fit(module, loader, RunConfig(out=folder, device="cpu"), folder, **options)
    return module


def test_a_meter_is_written_in_the_epochs_in_which_it_measures_and_before_the_first(tmp_path):
    fitted(tmp_path, epochs=4, meters=[EverySecond()])
    metrics = pd.read_csv(tmp_path / "metrics.csv").set_index("epoch")
    assert metrics["step"].to_dict() == {-1: 0, 0: 2, 1: 4, 2: 6, 3: 8}
    assert metrics["found"].dropna().to_dict() == {-1: 9.0, 1: 1.0, 3: 3.0}
    assert metrics["loss"].isna().tolist() == [True, False, False, False, False]


def test_notes_are_written_and_said_once_each(tmp_path, capsys):
    def read(rows: list) -> list[str]:
        return [f"loss seen in {rows[1]['epoch']}"] if len(rows) > 1 else []

    fitted(tmp_path, brief=True, read=read)
    assert (tmp_path / "notes.txt").read_text() == "loss seen in 1\n"
    assert capsys.readouterr().out.count("loss seen in 1") == 1


def test_a_run_without_notes_has_no_file_of_notes(tmp_path):
    fitted(tmp_path, brief=True, read=lambda rows: [])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_what_the_rows_of_the_checkpoint_say_is_not_said_again(tmp_path, capsys, trainer):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.load_state_dict({"rows": [{"epoch": 0}]})
    notes = NotesFile(tmp_path / "notes.txt", metrics, lambda rows: ["known"])
    notes.on_train_start(trainer, Weight())
    notes.on_train_epoch_end(trainer, Weight())
    assert capsys.readouterr().out == ""
    assert (tmp_path / "notes.txt").read_text() == "known\n"


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The time, to be moved by hand."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(records.time, "perf_counter", lambda: clock.now)
    return clock


def test_data_wait_is_the_share_of_an_epoch_spent_waiting_for_batches(tmp_path, clock, trainer):
    waiting = LoaderWaitProfiler()
    timing = TimingFile(tmp_path / "timing.csv", waiting)
    for epoch, (wait, work) in enumerate([(1.0, 3.0), (0.0, 2.0)]):
        timing.on_train_epoch_start(trainer, Weight())
        with waiting.profile("[_TrainingEpochLoop].train_dataloader_next"):
            clock.now += wait
        with waiting.profile("run_training_batch"):
            clock.now += work
        trainer.fit_loop.epoch_progress.current.completed = epoch
        timing.on_train_epoch_end(trainer, Weight())
    table = pd.read_csv(tmp_path / "timing.csv")
    assert table.to_dict("list") == {"epoch": [0, 1], "seconds": [4.0, 2.0], "data_wait": [0.25, 0.0]}


def test_lightning_tells_when_it_waits(tmp_path):
    class Slow(Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> torch.Tensor:
            time.sleep(0.2)
            return torch.zeros(1)

    fit(Weight(1), DataLoader(Slow()), RunConfig(out=tmp_path, device="cpu"), tmp_path)
    (row,) = pd.read_csv(tmp_path / "timing.csv").to_dict("records")
    assert row["seconds"] >= 0.4
    assert 0.39 <= row["seconds"] * row["data_wait"] <= row["seconds"]


def test_a_resumed_run_adds_to_the_timing(tmp_path):
    fitted(tmp_path, epochs=2)
    fitted(tmp_path, epochs=3)
    assert pd.read_csv(tmp_path / "timing.csv")["epoch"].tolist() == [0, 1, 2]


def test_tensorboard_gets_everything(tmp_path):
    fitted(tmp_path, meters=[EverySecond()])
    written = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "learning_rate", "data_wait", "found"} <= set(written.Tags()["scalars"])
    assert [(event.step, event.value) for event in written.Scalars("found")] == [(0, 9.0), (4, 1.0)]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.ckpt"
    SafeCheckpoints().save_checkpoint({"epoch": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        SafeCheckpoints().save_checkpoint({"epoch": 2, "no": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_a_fit_saves_its_checkpoints_safely(tmp_path):
    plugin = fitted(tmp_path).trainer.strategy.checkpoint_io
    assert type(plugin) is SafeCheckpoints


def test_the_bar_counts_epochs_from_one():
    bar = EpochBar()
    bar._trainer = SimpleNamespace(max_epochs=12)
    assert [bar._get_train_description(epoch).strip() for epoch in (0, 11)] == ["Epoch 1/12", "Epoch 12/12"]
