"""Jobs -> trained models and their predictions: one after the other or several at once; finished jobs stay done."""

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
from preprocessing.errors import ConfigError
from preprocessing.jobs.processes import completed


def train_all(experiment: Experiment, jobs: Sequence[TrainingJob], read: SequenceReader) -> None:
    """Train the models of all jobs that an earlier start has not finished.

    With `parallel_folds` above 1 each process has its share of torch's threads. A job's seeds are its own, so that its
    result is that of a serial run with as many threads, to the last bit; more threads add up in another order.

    Args:
        experiment: What they are trained with.
        jobs: The models.
        read: How the model reads sequences in this process; others make their own.

    Raises:
        PipelineError: A job failed; its notes name the job. Finished jobs stay done.
        ConfigError: A process that trained this job died twice.
    """
    todo = [job for job in jobs if not experiment.predictions(job).exists()]
    processes = min(experiment.config.parallel_folds, len(todo))
    if processes < 2:
        for job in track(todo, "train") if experiment.config.brief else todo:
            train_job(job, experiment, read)
        return
    work = partial(_train_apart, experiment=experiment, threads=max(1, torch.get_num_threads() // processes))
    with closing(completed(work, todo, processes)) as done:
        for job, future in track(done, f"train, {processes} at a time", total=len(todo)):
            if isinstance(future.exception(), BrokenProcessPool):
                raise ConfigError(
                    f"the process that trained {job} died, for want of memory as a rule",
                    where=experiment.folder(job),
                    fix="lower parallel_folds; the same command goes on with the folds that are done",
                )
            future.result()


def train_job(job: TrainingJob, experiment: Experiment, read: SequenceReader | None = None) -> None:
    """Train one model and write its predictions, the last file of a job, which marks it as done."""
    result = experiment.predictions(job)
    result.parent.mkdir(parents=True, exist_ok=True)
    try:
        rows = _train(job, experiment, read)
    except Exception as error:
        error.add_note(f"this happened in {job}")
        raise
    write_predictions(result, [row | {SHUFFLED: job.shuffle} for row in rows])


def collected(experiment: Experiment, jobs: Sequence[TrainingJob]) -> list[dict]:
    """Read the rows that jobs have written, job after job, as strings."""
    return [row for job in jobs for row in read_prediction_rows(experiment.predictions(job))]


def _train(job: TrainingJob, experiment: Experiment, read: SequenceReader | None) -> list[dict]:
    if job.learner is None:
        return train_fold_model(experiment, job, read)
    return predict_clinical(experiment, job) if job.learner == "clinical" else predict_tile_baseline(experiment, job)


def _train_apart(job: TrainingJob, *, experiment: Experiment, threads: int) -> None:
    """Run `train_job` in a process of its own; its output goes to a file next to its metrics, not to the terminal."""
    torch.set_num_threads(threads)
    folder = experiment.folder(job)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a", encoding="utf-8") as file, redirect_stdout(file):
        train_job(job, experiment)
