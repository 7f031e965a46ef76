from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from longvit.config import ExecutionConfig
from longvit.model.rank_group import RankGroup
from longvit.training.mesh import Mesh, current_mesh, open_mesh
from preprocessing.errors import BusyError, ConfigError


def test_a_process_without_launcher_is_alone():
    with open_mesh(ExecutionConfig(), "cpu") as mesh:
        assert mesh == Mesh() == current_mesh()
        assert mesh.first
        assert mesh.of_all(3) == [3]
        assert mesh.from_first(lambda: 4) == 4
        assert list(range(5))[mesh.data_part] == list(range(5))
        mesh.require_same("settings", object())
        mesh.require_tokens({"a": 1})


def test_a_launcher_with_one_process_starts_no_group(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with open_mesh(ExecutionConfig(), "cpu") as mesh:
        assert mesh == Mesh()


def test_more_ranks_per_sequence_than_processes_are_refused():
    with (
        pytest.raises(ConfigError, match="2 ranks per sequence do not divide 1 process"),
        open_mesh(ExecutionConfig(sequence_parallel=2), "cpu"),
    ):
        pass


def test_a_job_that_lightning_refuses_is_one_sentence(monkeypatch):
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "encode"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="--ntasks-per-node"), open_mesh(ExecutionConfig(), "cpu"):
        pass


def values(group: RankGroup) -> tuple[object, ...]:
    mesh = Mesh(world=group, data=group)
    return mesh.first, mesh.from_first(lambda: group.rank + 7), mesh.of_all(group.rank), list(range(7))[mesh.data_part]


def test_ranks_share_values_and_parts_of_the_data(ranks):
    assert ranks(3, values) == [
        (True, 7, [0, 1, 2], [0, 3, 6]),
        (False, 7, [0, 1, 2], [1, 4]),
        (False, 7, [0, 1, 2], [2, 5]),
    ]


def refused(group: RankGroup, kind: str) -> str:
    """Return the error that a rank gets where one rank, or its value, is not as it must be."""
    mesh = Mesh(world=group, sequence=group)

    def busy() -> None:
        raise BusyError("another process is writing here", where="out", fix="wait")

    calls = {
        "error": lambda: mesh.from_first(busy),
        "difference": lambda: mesh.require_same("settings", {"a": group.rank == 2}),
        "tokens": lambda: mesh.require_tokens({"b": 3, "a": 2, "c": 1}),
    }
    with pytest.raises((BusyError, ConfigError)) as error:
        calls[kind]()
    mesh.require_same("settings", ["afterwards the ranks can go on"])
    return error.value.what


@pytest.mark.parametrize(
    ("kind", "what"),
    {
        "error": "another process is writing here",
        "difference": "rank 2 has settings that differ from those of rank 0",
        "tokens": "2 of 3 sequences have too few tokens for 3 ranks: a, c",
    }.items(),
)
def test_an_error_is_raised_on_every_rank(kind, what, ranks):
    assert ranks(3, refused, kind) == [what] * 3


def entered(group: RankGroup, fails: bool) -> list[object]:
    mesh, seen = Mesh(world=group), []

    @contextmanager
    def folder() -> Iterator[str]:
        if fails:
            raise BusyError("another process is writing here", where="out", fix="wait")
        seen.append("entered")
        yield "run"
        seen.append("left")

    try:
        with mesh.entered_by_first(folder()) as run:
            seen.append(run)
    except BusyError as error:
        seen.append(error.what)
    return seen


def test_a_context_is_entered_and_left_by_the_first_rank_alone(ranks):
    assert ranks(2, entered, False) == [["entered", "run", "left"], ["run"]]
    assert ranks(2, entered, True) == [["another process is writing here"]] * 2
