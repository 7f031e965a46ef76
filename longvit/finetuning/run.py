"""Verb `finetune`: encoder + table + splits -> one model per fold, and predictions.csv."""

import copy
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from longvit.config import CoxTask, FinetuneConfig
from longvit.finetuning.audit import audit
from longvit.finetuning.cohort import Cohort
from longvit.finetuning.data import (
    PatientDataset,
    SlideReader,
    cohort_stores,
    represent_slides,
    shuffled_targets,
    train_loader,
    whole_loader,
)
from longvit.finetuning.folds import Fold
from longvit.finetuning.model import SlideModel, save_model
from longvit.finetuning.module import FinetuneModule
from longvit.model import LongViT, load_encoder
from longvit.runs import open_run, write_atomically
from longvit.tokens.dataset import find_stores
from longvit.tokens.read import require_fit, require_one_scale, slide_tokens
from longvit.training import begin, fit, pick_device, write_rows
from preprocessing.errors import CohortError, ConfigError
from preprocessing.store import open_store


def run(config: FinetuneConfig) -> Path:
    """Train and predict every fold; what an interrupted run has finished is not done again.

    Returns:
        `predictions.csv` in the run's folder: a row per held-out slide of every fold, and of every shuffled control;
        beside it `audit.json`, what the audit found and the user accepted.

    Raises:
        CohortError: The table or the splits cannot be used, or the audit refuses them.
        StoreError, CheckpointError: Stores or weights are missing or do not fit.
        ConfigError: The settings contradict each other, or the folder holds another run.
    """
    audited = audit(config)
    audited.refuse()
    cohort, folds = audited.cohort, audited.folds
    for fold in folds:
        check_fold(fold, cohort, config)
    stores = cohort_stores(find_stores(config.stores), cohort, folds, config.stores)
    begin(config)
    encoder = load_encoder(config.checkpoint) if config.checkpoint else LongViT(config.encoder)
    require_one_scale(list(stores.values()))
    for store in stores.values():
        require_fit(open_store(store), encoder.config.input)
    model = SlideModel(encoder, config.task, cohort.classes)
    result = config.out / "predictions.csv"
    folder = open_run(config, "finetune", result)
    if not result.exists():
        write_atomically(folder / "audit.json", audited.as_json())
        read = slide_reader(model, stores, config, folder)
        jobs = [(fold, shuffle) for fold in folds for shuffle in (None, *range(config.shuffles))]
        shown = track(jobs, "train folds") if config.freeze_encoder else jobs
        rows = [row for fold, shuffle in shown for row in train_and_predict(model, fold, shuffle, cohort, read, config)]
        write_rows(result, rows)
    return result


def check_fold(fold: Fold, cohort: Cohort, config: FinetuneConfig) -> None:
    """Refuse a fold that cannot be trained on, before anything is computed.

    Raises:
        CohortError: Training patients without events, or of one class.
        ConfigError: Selection on val where val is the held-out part.
    """
    where = config.splits / f"splits_{fold.index}.csv"
    train = cohort.targets.loc[list(fold.train)]
    if isinstance(config.task, CoxTask):
        for part, needed in (("train", config.task.min_events), ("val", int(config.select == "best_val"))):
            events = int(cohort.targets.loc[list(getattr(fold, part)), "event"].sum())
            if events < needed:
                raise CohortError(
                    f"fold {fold.index} has {events} observed events in {part}, fewer than {needed}",
                    where=where,
                    fix="use splits stratified by event, leave the fold out with folds, or lower task.min_events",
                )
    elif train["label"].nunique() < len(cohort.classes):
        absent = sorted(set(cohort.classes) - set(train["label"]))
        raise CohortError(
            f"fold {fold.index} has no training patient of class {', '.join(absent)}",
            where=where,
            fix="use splits stratified by class, or leave the fold out with folds",
        )
    if config.select == "best_val" and fold.held_out == "val":
        raise ConfigError(
            f"fold {fold.index} has no test part, so val is what results are reported on",
            where=where,
            fix="set select: last, or add a test column; choosing the epoch on the reported part inflates the result",
        )


def slide_reader(model: SlideModel, stores: dict[str, Path], config: FinetuneConfig, folder: Path) -> SlideReader:
    """How a slide is read: its representation by the frozen encoder, or its tokens."""
    if config.freeze_encoder:
        return represent_slides(model, stores, config, folder / "representations.safetensors").__getitem__
    return partial(_tokens, stores, model.encoder.config.input)


def _tokens(stores: dict[str, Path], source: object, slide: str) -> object:
    return slide_tokens(open_store(stores[slide]), source)  # type: ignore[arg-type]


def train_and_predict(
    model: SlideModel, fold: Fold, shuffle: int | None, cohort: Cohort, read: SlideReader, config: FinetuneConfig
) -> list[dict]:
    """Train one model on one fold and predict its val and test parts, or read what an earlier start predicted."""
    folder = config.out / f"fold_{fold.index}" / ("" if shuffle is None else f"shuffled_{shuffle}")
    result = folder / "predictions.csv"
    if result.exists():
        return pd.read_csv(result, dtype=str, keep_default_na=False).to_dict("records")
    folder.mkdir(parents=True, exist_ok=True)
    targets = cohort.targets if shuffle is None else shuffled_targets(cohort.targets, fold, (config.seed, shuffle))
    train, val = (PatientDataset(part, cohort, targets, read) for part in (fold.train, fold.val))
    model = copy.deepcopy(model)
    model.head.standardise_by(representations(model, train, config))
    module = FinetuneModule(model, config)
    monitor = "val_loss" if config.select == "best_val" else None
    if not config.freeze_encoder:
        print(f"fold {fold.index}" + ("" if shuffle is None else f", shuffled labels {shuffle}"))
    fit(
        module,
        train_loader(train, config),
        config,
        folder,
        val_loader=whole_loader(val) if monitor else None,
        monitor=monitor,
        brief=config.freeze_encoder,
    )
    if shuffle is None:
        save_model(folder / "model.safetensors", model)
    rows = [row | {"shuffled": shuffle} for row in predict_fold(module, fold, cohort, read, config)]
    write_rows(result, rows)
    return rows


@torch.inference_mode()
def representations(model: SlideModel, dataset: PatientDataset, config: FinetuneConfig) -> Tensor:
    """(slides, D) representations of all slides of a dataset's patients."""
    device = pick_device(config.device)
    model.eval().to(device)
    slides = (dataset.read(slide) for case in dataset.patients for slide in dataset.cohort.slides[case])
    vectors = [s if isinstance(s, Tensor) else model.represent(s.to(device)) for s in slides]
    return torch.cat([vector.float().to(device) for vector in vectors])


@torch.inference_mode()
def predict_fold(
    module: FinetuneModule, fold: Fold, cohort: Cohort, read: SlideReader, config: FinetuneConfig
) -> list[dict]:
    """A row for each slide of the val and test parts, with the true target beside the prediction."""
    model, device = module.model.eval().to(pick_device(config.device)), pick_device(config.device)
    rows = []
    for split in ("val", "test"):
        for case in getattr(fold, split):
            target = cohort.targets.loc[case].to_dict()
            for slide in cohort.slides[case]:
                item = read(slide).to(device)
                output = model.head(item) if isinstance(item, Tensor) else model(item)
                keys = {"patient_id": case, "slide_id": slide, "fold": fold.index, "split": split}
                rows.append(keys | target | columns(output[0].float().cpu(), cohort.classes))
    return rows


def columns(output: Tensor, classes: tuple[str, ...]) -> dict[str, float]:
    """A model's output as columns of predictions.csv: `p_<class>` each, or `risk` (higher = earlier event)."""
    if not classes:
        return {"risk": output.item()}
    return {f"p_{name}": p.item() for name, p in zip(classes, output.double().softmax(0), strict=True)}
