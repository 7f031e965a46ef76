"""Metrics for TensorBoard."""

import getpass
import os
import socket

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from longvit.training.events import EventsFile


def test_tensorboard_reads_the_metrics_of_a_run_and_of_its_second_start(tmp_path):
    for start in ((1, 2), (3,)):
        events = EventsFile(tmp_path / "tensorboard")
        for step in start:
            events.log_metrics({"loss": 1 / step}, step)
        events.finalize("success")
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(one.step, round(one.value, 3)) for one in found.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 0.333)]


def test_neither_name_nor_content_holds_the_host_the_user_or_the_process(tmp_path):
    events = EventsFile(tmp_path)
    events.log_metrics({"loss": 1.0}, 1)
    events.finalize("success")
    (file,) = tmp_path.iterdir()
    written = file.name.encode() + file.read_bytes()
    for secret in (socket.gethostname(), f".{os.getpid()}", f"/{getpass.getuser()}", str(tmp_path)):
        assert secret.encode() not in written
