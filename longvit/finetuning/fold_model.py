"""Model of one fold: trained, saved, and applied to the held-out patients."""

import json
from copy import deepcopy

import numpy as np
import torch

from longvit.config import FinetuneConfig
from longvit.finetuning.build import build_model
from longvit.finetuning.data import PatientDataset, SequenceReader, train_loader, whole_loader
from longvit.finetuning.experiment import Experiment, TrainingJob
from longvit.finetuning.finetune_module import FinetuneModule
from longvit.finetuning.fit_statistics import prepare
from longvit.finetuning.predict_sequences import predict_sequences
from longvit.finetuning.representations import sequence_reader
from longvit.model.outputs import SCALE_FILE, RiskScale
from longvit.model.predictor import SlideModel, save_model
from longvit.tokens.read import StoreScale
from longvit.training.callbacks import risen
from longvit.training.loop import begin, fit, pick_device
from longvit.training.mesh import current_mesh
from longvit.training.sharding import whole
from preprocessing.jobs.files import write_whole
from preprocessing.store.store import open_store


def train_fold_model(experiment: Experiment, job: TrainingJob, read: SequenceReader | None = None) -> list[dict]:
    """Train one model, predict the val and test parts of its fold, and return the rows of predictions.

    Writes `model.safetensors` to the job's folder, and for a survival model `risk_scale.json`, the mean and deviation
    of its training patients' risks. Neither is written for shuffled controls. Writes `notes.txt` if the training went
    wrong.

    Args:
        experiment: Inputs that all models of the run share.
        job: The fold, and the labels.
        read: Reader of sequences; default: made here.
    """
    config, cohort, folder = experiment.config, experiment.cohort, experiment.folder(job)
    begin(config)
    model, device = build_model(config, cohort.classes), pick_device(config.device)
    read = read or sequence_reader(model, experiment.sequences, experiment.stores, config)
    targets = experiment.targets(job)
    train, val = (PatientDataset(part, cohort, targets, read, config.fusion) for part in (job.fold.train, job.fold.val))
    notes = prepare(model, train, device)
    monitor = "val_loss" if config.select == "best_val" else None
    if not config.brief:
        print(job)
    module = FinetuneModule(deepcopy(model) if config.execution.fsdp else model, config)
    fit(
        module,
        train_loader(train, config),
        config,
        folder,
        val_loader=whole_loader(val) if monitor else None,
        monitor=monitor,
        patience=config.patience,
        brief=config.brief,
        read=lambda rows: [*notes, *risen(rows)] if rows else [],
    )
    if config.execution.fsdp:
        model.load_state_dict(whole(module.model.state_dict()))
    if job.shuffle is None:
        model.required_encoder.trained_on = StoreScale.of(open_store(next(iter(experiment.stores.values()))))
        mesh = current_mesh()
        mesh.from_first(lambda: save_model(folder / "model.safetensors", model))
        if not model.classes:
            scale = json.dumps(risk_scale(model, train, device)._asdict()) + "\n"
            mesh.from_first(lambda: write_whole(folder / SCALE_FILE, scale))
    return predict_held_out(model, experiment, job, read, config)


def predict_held_out(
    model: SlideModel, experiment: Experiment, job: TrainingJob, read: SequenceReader, config: FinetuneConfig
) -> list[dict]:
    """Return rows of the val and test parts, with the true targets next to the predictions."""
    rows, device = [], pick_device(config.device)
    for part in ("val", "test"):
        patients = PatientDataset(
            job.fold.parts[part], experiment.cohort, experiment.cohort.targets, read, config.fusion
        )
        rows += predict_sequences(model, patients, device, {"fold": job.fold.index, "split": part})
    return rows


def risk_scale(model: SlideModel, train: PatientDataset, device: torch.device) -> RiskScale:
    """Return mean and deviation of a survival model's risks for its training patients; each patient counts once."""
    risks: dict[str, list[float]] = {}
    for row in predict_sequences(model, train, device, {}):
        risks.setdefault(row["patient_id"], []).append(row["risk"])
    means = np.array([np.mean(of_patient) for of_patient in risks.values()])
    return RiskScale(float(means.mean()), float(means.std()))
