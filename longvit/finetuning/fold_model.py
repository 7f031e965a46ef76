"""Model of one fold: trained, saved, and applied to the held-out patients."""

import json
from copy import deepcopy

import numpy as np
import torch

from longvit.config import FinetuneConfig, Part
from longvit.finetuning.build import build_model
from longvit.finetuning.data import PatientDataset, SequenceReader, train_loader, whole_loader
from longvit.finetuning.experiment import Experiment, TrainingJob
from longvit.finetuning.finetune_module import FinetuneModule
from longvit.finetuning.fit_statistics import prepare
from longvit.finetuning.predict_sequences import Predicted, predict_and_represent, predict_sequences
from longvit.finetuning.representations import sequence_reader
from longvit.finetuning.site_probe import site_probe
from longvit.formats.site_probe_json import SiteProbe, write_site_probe
from longvit.model.outputs import SCALE_FILE, RiskScale
from longvit.model.predictor import SlideModel, save_model
from longvit.tokens.read import StoreScale
from longvit.training.callbacks import risen
from longvit.training.loop import begin, fit, pick_device
from longvit.training.mesh import current_mesh
from longvit.training.sharding import whole
from preprocessing.jobs.files import write_whole
from preprocessing.store.store import open_store

_HELD_OUT: tuple[Part, ...] = ("val", "test")


def train_fold_model(experiment: Experiment, job: TrainingJob, read: SequenceReader | None = None) -> list[dict]:
    """Train one model, predict the val and test parts of its fold, and return the rows of predictions.

    Writes `model.safetensors` to the job's folder, `site_probe.json`, and for a survival model `risk_scale.json`, the
    mean and deviation of its training patients' risks. None is written for shuffled controls. Writes `notes.txt` if the
    training went wrong.

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
    held_out = predict_held_out(model, experiment, job, read, config)
    if job.shuffle is None:
        probed = _site_probe(held_out[job.fold.held_out], experiment)
        current_mesh().from_first(lambda: write_site_probe(folder, probed))
    return [row for part in held_out.values() for row in part.rows]


def predict_held_out(
    model: SlideModel, experiment: Experiment, job: TrainingJob, read: SequenceReader, config: FinetuneConfig
) -> dict[Part, Predicted]:
    """Return predictions for the val and test parts, with the true targets next to them."""
    held_out: dict[Part, Predicted] = {}
    for part in _HELD_OUT:
        patients = PatientDataset(
            job.fold.parts[part], experiment.cohort, experiment.cohort.targets, read, config.fusion
        )
        marks = {"fold": job.fold.index, "split": part}
        held_out[part] = predict_and_represent(model, patients, pick_device(config.device), marks)
    return held_out


def _site_probe(test: Predicted, experiment: Experiment) -> SiteProbe:
    cohort, patients = experiment.cohort, [row["patient_id"] for row in test.rows]
    labels = {str(case): label for case, label in cohort.strata.items()}
    return site_probe(test.vectors_ND.numpy(), patients, cohort.sites, labels, experiment.config.seed)


def risk_scale(model: SlideModel, train: PatientDataset, device: torch.device) -> RiskScale:
    """Return mean and deviation of a survival model's risks for its training patients; each patient counts once."""
    risks: dict[str, list[float]] = {}
    for row in predict_sequences(model, train, device, {}):
        risks.setdefault(row["patient_id"], []).append(row["risk"])
    means = np.array([np.mean(of_patient) for of_patient in risks.values()])
    return RiskScale(float(means.mean()), float(means.std()))
