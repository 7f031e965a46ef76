"""Verb `finetune`: encoder + table + splits -> one model per fold, baselines, and predictions.csv."""

from collections.abc import Sequence
from pathlib import Path

from longvit.cohort.checks import audit_splits
from longvit.cohort.splits import read_splits
from longvit.config import Baseline, FinetuneConfig
from longvit.finetuning.baselines import tile_notes, tile_vectors
from longvit.finetuning.build import build_model
from longvit.finetuning.clinical_baseline import clinical_covariates, clinical_notes
from longvit.finetuning.crossvalidation import collected, train_all
from longvit.finetuning.experiment import Experiment
from longvit.finetuning.guards import check_fold
from longvit.finetuning.representations import sequence_reader
from longvit.formats.audit_json import AuditFile, write_audit
from longvit.formats.csv_rows import JOINED
from longvit.formats.membership_csv import write_membership
from longvit.formats.predictions_csv import PREDICTIONS, write_predictions
from longvit.model.predictor import SlideModel
from longvit.runs.folder import open_run, settings_of
from longvit.runs.input_hashes import RecordedInputs, read_inputs
from longvit.tokens.read import require_one_scale, require_scale
from longvit.tokens.source import token_source
from longvit.training.loop import begin, pick_device
from longvit.training.mesh import Mesh, current_mesh, open_mesh
from preprocessing.errors import ConfigError
from preprocessing.jobs.files import write_whole
from preprocessing.store.piece import with_pieces
from preprocessing.store.store import find_stores, open_store


def run(config: FinetuneConfig) -> Path:
    """Train and predict every fold, by the model and its baselines; folds that an earlier start finished are kept.

    In a mesh, all ranks train each model together, with the losses and gradients of one process. The first rank trains
    the baselines, which are small.

    Returns:
        `predictions.csv` in the run's folder: one row per held-out sequence of every fold and of every shuffled
        control. Next to it are `audit.json`, with all findings and the accepted findings, and `membership.csv`, with
        the part of each patient. `baselines/<name>/` has a `predictions.csv` of the same patients, and `notes.txt`,
        which describes the baseline.

    Raises:
        CohortError: The tables or the splits cannot be used, or the audit refuses them.
        StoreError, CheckpointError: Stores or weights are missing or do not fit.
        ConfigError: The settings contradict each other, the folder contains another run, or the ranks of a mesh
            disagree.
    """
    with open_mesh(config.execution, config.device, trains=True) as mesh:
        return _run(config, mesh)


def _run(config: FinetuneConfig, mesh: Mesh) -> Path:
    audited = audit_splits(config)
    audited.refuse()
    config = config.model_copy(update={"task": audited.cohort.task})
    for fold in audited.folds:
        check_fold(fold, audited.cohort, config)
    begin(config)
    model = build_model(config, audited.cohort.classes)
    encoder = model.required_encoder
    config = config.model_copy(update={"encoder": encoder.config})  # the encoder in use, for config.yaml
    found = with_pieces(find_stores(config.stores), audited.cohort.patient_of)
    cases = {case for fold in audited.folds for part in fold.parts.values() for case in part}
    stores = {slide: found[slide] for case in sorted(cases) for slide in audited.cohort.slides[case]}
    experiment = Experiment(config, audited.cohort, audited.folds, stores, encoder.config.input)
    require_scale(map(open_store, stores.values()), encoder.trained_on, config.checkpoint)
    _refuse_unfit(experiment)
    if mesh.world and config.parallel_folds > 1:
        raise ConfigError(
            "folds cannot be trained at the same time by several processes that train one model together",
            where="parallel_folds",
            fix="set it to 1, or start one process",
        )
    mesh.require_shares("window", config.window)
    result, inputs = config.out / PREDICTIONS, _inputs(experiment)
    mesh.require_same("settings, tables, splits or stores", (settings_of(config), inputs.stores, inputs.files))
    with mesh.entered_by_first(open_run(config, "finetune", inputs, result)) as opened:
        if not opened.finished:
            folds = {fold.index: fold.parts for fold in experiment.folds}
            mesh.from_first(lambda: write_membership(config.out, stores, experiment.cohort.patient_of, folds))
            _train(experiment, model, audited.file)
    return result


def _inputs(experiment: Experiment) -> RecordedInputs:
    config = experiment.config
    names = ("table", "slide_table", "clinical", "checkpoint")
    files = {name: getattr(config, name) for name in names}
    files["splits"] = [file for split in read_splits(config.splits, config.folds) for file in split.files]
    return read_inputs(files, experiment.stores, experiment.source)


def _refuse_unfit(experiment: Experiment) -> None:
    """Refuse stores and tables that models or baselines cannot be trained on, before anything is computed."""
    require_one_scale(list(experiment.stores.values()))
    tokens = {}
    for slide, store in experiment.stores.items():
        tokens[slide] = len(token_source(open_store(store), experiment.source))  # refuses a store that does not fit
    current_mesh().require_tokens(
        {JOINED.join(slides): sum(tokens[slide] for slide in slides) for slides in experiment.sequences}
    )
    if "clinical" in experiment.config.baselines:
        clinical_covariates(experiment)


def _train(experiment: Experiment, model: SlideModel, audit_splits: AuditFile) -> None:
    """Train all jobs, then write their predictions."""
    config = experiment.config
    read = sequence_reader(model, experiment.sequences, experiment.stores, config)
    if {"abmil", "mean"} & set(config.baselines):
        current_mesh().from_first(lambda: _prepare_tiles(experiment, model))
    learners = (*dict.fromkeys(config.baselines), None)
    train_all(experiment, [job for learner in reversed(learners) for job in experiment.jobs(learner)], read)
    current_mesh().from_first(lambda: _write_results(experiment, learners, audit_splits))


def _prepare_tiles(experiment: Experiment, model: SlideModel) -> None:
    """Compute the tile vectors of the baselines in this process alone."""
    encoder, threads = model.required_encoder, max(1, experiment.config.loader_workers)
    group, encoder.group = encoder.group, None
    try:
        tile_vectors(experiment).prepare(encoder, pick_device(experiment.config.device), threads)
    finally:
        encoder.group = group


def _write_results(experiment: Experiment, learners: Sequence[Baseline | None], audit_splits: AuditFile) -> None:
    """Write the predictions of all learners; the model's own table comes last and marks the run as done."""
    for learner in learners:
        folder = experiment.config.out / (f"baselines/{learner}" if learner else "")
        write_audit(folder, audit_splits)
        if learner:
            notes = clinical_notes(experiment) if learner == "clinical" else tile_notes(experiment, learner)
            write_whole(folder / "notes.txt", "".join(f"{note}\n" for note in notes))
        write_predictions(folder / PREDICTIONS, collected(experiment, experiment.jobs(learner)))
