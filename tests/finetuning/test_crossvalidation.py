import hashlib
import pickle
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from longvit.finetuning import crossvalidation
from longvit.finetuning.finetune import run
from preprocessing.errors import ConfigError, StoreError


def results(folder: Path) -> dict[str, str]:
    """Predictions and weights of a run, by what is in them."""
    files = [path for kind in ("predictions.csv", "*.safetensors", "metrics.csv") for path in folder.rglob(kind)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def test_folds_trained_at_once_are_those_trained_one_after_the_other_to_the_last_bit(config, tmp_path):
    run(config)
    together = config.model_copy(update={"out": tmp_path / "together", "parallel_folds": 2})
    run(together)
    assert results(together.out) == results(config.out)
    assert "fold 1" in (together.out / "fold_1" / "output.txt").read_text()


def test_a_run_goes_on_with_another_number_of_processes(config):
    config = config.model_copy(update={"trained_blocks": 0})
    expected = run(config).read_bytes()
    (config.out / "predictions.csv").unlink()
    (config.out / "fold_1" / "predictions.csv").unlink()
    assert run(config.model_copy(update={"parallel_folds": 4})).read_bytes() == expected


def test_what_stops_a_fold_says_which(config, monkeypatch):
    def fail(experiment, job, read):
        raise StoreError("a tile is damaged", where="P01-0.zarr", fix="tile it again")

    monkeypatch.setattr(crossvalidation, "train_fold_model", fail)
    with pytest.raises(StoreError, match="a tile is damaged") as caught:
        run(config.model_copy(update={"trained_blocks": 0, "folds": (1,)}))
    assert "this happened in fold 1" in str(caught.value)


def test_a_users_error_comes_out_of_another_process_with_all_its_words():
    error = StoreError("a tile is damaged", where=Path("P01-0.zarr"), fix="tile it again")
    error.add_note("this happened in fold 1")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_process_that_dies_names_its_fold_and_leaves_the_others_done(config, monkeypatch):
    def die(function, jobs, workers):
        future: Future = Future()
        future.set_exception(BrokenProcessPool())
        yield jobs[1], future

    monkeypatch.setattr(crossvalidation, "completed", die)
    with pytest.raises(ConfigError, match="the process that trained fold 1 died") as caught:
        run(config.model_copy(update={"trained_blocks": 0, "parallel_folds": 2}))
    assert "lower parallel_folds" in caught.value.fix
