"""Baselines `abmil` and `mean`: predictions from tile vectors, without an encoder of the whole slide."""

from functools import cache

from longvit.config import Baseline, FinetuneConfig, FinetuneOptimiserConfig
from longvit.finetuning.data import PatientDataset, train_loader
from longvit.finetuning.experiment import Experiment, TrainingJob
from longvit.finetuning.finetune_module import FinetuneModule
from longvit.finetuning.fit_statistics import prepare
from longvit.finetuning.fold_model import predict_held_out
from longvit.finetuning.tile_vectors import TileVectors
from longvit.model.predictor import SlideModel
from longvit.training.callbacks import risen
from longvit.training.loop import begin, fit, pick_device

RECIPES = {
    "mean": FinetuneOptimiserConfig(epochs=60, learning_rate=1e-2, warmup_epochs=5, weight_decay=0.1),
    "abmil": FinetuneOptimiserConfig(epochs=40, learning_rate=1e-3, warmup_epochs=4, weight_decay=0.01),
}
"""Optimiser of each baseline, the same for every cohort, so that it is not tuned; windows of `WINDOW` patients."""
WINDOW = 32


def recipe(config: FinetuneConfig, learner: Baseline) -> FinetuneConfig:
    """Return the run's settings with a baseline's own recipe, which is independent of the model's training settings."""
    values = {"optimiser": RECIPES[learner], "window": WINDOW, "trained_blocks": 0, "select": "last", "patience": None}
    return config.model_copy(update=values | {"fusion": "late", "precision": "32"})


def predict_tile_baseline(experiment: Experiment, job: TrainingJob) -> list[dict]:
    """Train one baseline on the training patients, predict val and test, and return one row per slide.

    The tile vectors of a slide are pooled by gated attention (Ilse et al. 2018, equation 9) or as their mean. The
    pooled vector goes through the model's own head: standardised by the training slides, then one linear layer. The
    loss is the task's loss.
    """
    assert job.learner is not None  # the model itself
    config, cohort = recipe(experiment.config, job.learner), experiment.cohort
    begin(config)
    tiles = tile_vectors(experiment)
    pooling, reader = "attention", lambda slides: tiles.tiles(slides[0])[None]
    if job.learner == "mean":
        pooling, reader = "encoder", cache(lambda slides: tiles.mean(slides[0]))  # one vector, kept in memory
    model = SlideModel(None, config.task, cohort.classes, pooling, tiles.width)
    train = PatientDataset(job.fold.train, cohort, experiment.targets(job), reader)
    notes = prepare(model, train, pick_device(config.device))
    read = lambda rows: [*notes, *risen(rows)] if rows else []
    fit(
        FinetuneModule(model, config),
        train_loader(train, config),
        config,
        experiment.folder(job),
        brief=True,
        read=read,
    )
    held_out = predict_held_out(model, experiment, job, reader, config)
    return [row for part in held_out.values() for row in part.rows]


def tile_vectors(experiment: Experiment) -> TileVectors:
    """Return the tile vectors of this run's slides, the input of the baselines."""
    return TileVectors(experiment.config.out / "baselines" / "tiles", experiment.stores, experiment.source)


def tile_notes(experiment: Experiment, learner: Baseline) -> list[str]:
    """Return sentences that describe a baseline, for the report."""
    what = "a linear head on the mean" if learner == "mean" else "gated attention (ABMIL) and a linear head on the bag"
    of = "the tokens of a tile averaged, by the frozen encoder this training started from"
    if experiment.source.features:
        of = f"embeddings/{experiment.source.features} of the stores, which the encoder reads too"
    optimiser = RECIPES[learner]
    how = f"{optimiser.epochs} epochs of AdamW at {optimiser.learning_rate:g}, windows of {WINDOW} patients"
    notes = [f"{what} of a slide's tile vectors ({of}); {how}, for every cohort alike."]
    if learner == "mean" and not experiment.source.features and experiment.config.brief:
        notes.append("The model's encoder is frozen: if it pools by the mean, the two differ in the recipe alone.")
    return notes
