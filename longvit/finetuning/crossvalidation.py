"""Training of all models of a run and their predictions: one job after another or several at once.

Finished jobs are not repeated.
"""

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, redirect_stdout
from functools import partial

import torch
from rich.progress import track

from longvit.finetuning.baselines import predict_tile_baseline
from longvit.finetuning.clinical_baseline import predict_clinical
from longvit.finetuning.data import SequenceReader
from longvit.finetuning.experiment import Experiment, TrainingJob
from longvit.finetuning.fold_model import train_fold_model
from longvit.formats.predictions_csv import SHUFFLED, read_prediction_rows, write_predictions
from longvit.training.mesh import alone, current_mesh
from preprocessing.errors import ConfigError
from preprocessing.jobs.processes import completed


def train_all(experiment: Experiment, jobs: Sequence[TrainingJob], read: SequenceReader) -> None:
    """Train the models of all jobs that an earlier start has not finished.

    With `parallel_folds` above 1 each process has its share of torch's threads. A job has its own seeds, so its result
    equals a serial run's with as many threads, to the last bit. More threads sum in another order.

    Args:
        experiment: Inputs that all models share.
        jobs: Models to train.
        read: Reader of sequences in this process; other processes make their own.

    Raises:
        PipelineError: A job failed; the error's notes name the job. Finished jobs are kept.
        ConfigError: A process that trained a job died twice.
    """
    mesh = current_mesh()
    done = mesh.from_first(lambda: [experiment.predictions(job).exists() for job in jobs])
    todo = [job for job, is_done in zip(jobs, done, strict=True) if not is_done]
    processes = min(experiment.config.parallel_folds, len(todo))
    if processes < 2:
        for job in track(todo, "train") if experiment.config.brief else todo:
            if job.learner is None:
                train_job(job, experiment, read)
            else:
                mesh.from_first(partial(_train_alone, job, experiment))
        return
    work = partial(_train_apart, experiment=experiment, threads=max(1, torch.get_num_threads() // processes))
    with closing(completed(work, todo, processes)) as done:
        for job, future in track(done, f"train, {processes} at a time", total=len(todo)):
            if isinstance(future.exception(), BrokenProcessPool):
                raise ConfigError(
                    f"the process that trained {job} died, usually because memory ran out",
                    where=experiment.folder(job),
                    fix="lower parallel_folds; the same command continues after the finished folds",
                )
            future.result()


def train_job(job: TrainingJob, experiment: Experiment, read: SequenceReader | None = None) -> None:
    """Train one model and write its predictions, the last file of a job, which marks the job as done."""
    result = experiment.predictions(job)
    result.parent.mkdir(parents=True, exist_ok=True)
    try:
        rows = _train(job, experiment, read)
    except Exception as error:
        error.add_note(f"this happened in {job}")
        raise
    current_mesh().from_first(lambda: write_predictions(result, [row | {SHUFFLED: job.shuffle} for row in rows]))


def _train_alone(job: TrainingJob, experiment: Experiment) -> None:
    with alone():
        train_job(job, experiment)


def collected(experiment: Experiment, jobs: Sequence[TrainingJob]) -> list[dict]:
    """Read the rows of all jobs' predictions, job after job, as strings."""
    return [row for job in jobs for row in read_prediction_rows(experiment.predictions(job))]


def _train(job: TrainingJob, experiment: Experiment, read: SequenceReader | None) -> list[dict]:
    if job.learner is None:
        return train_fold_model(experiment, job, read)
    return predict_clinical(experiment, job) if job.learner == "clinical" else predict_tile_baseline(experiment, job)


def _train_apart(job: TrainingJob, *, experiment: Experiment, threads: int) -> None:
    """Run `train_job` in its own process; its output goes to a file next to its metrics, not to the terminal."""
    torch.set_num_threads(threads)
    folder = experiment.folder(job)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a", encoding="utf-8", newline="\n") as file, redirect_stdout(file):
        train_job(job, experiment)
