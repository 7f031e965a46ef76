"""Verb `explain`: models + stores -> scores of every token, pictures, and files for QuPath."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from longvit.config import ExplainConfig
from longvit.explanation.attribution import squares
from longvit.explanation.earlier import SlideResult, is_to_explain, slide_results
from longvit.explanation.faithfulness import Curves, blind_orders, curves, save_curves
from longvit.explanation.files import write_files
from longvit.explanation.methods import require_squares, settle_methods
from longvit.explanation.models import ExplainedModels, load_models, require_one_model
from longvit.explanation.picture import picture_size, slide_picture
from longvit.explanation.question import Question, ask, mean_maps, require_target
from longvit.explanation.result import Explanation, Origin, ScoreMap
from longvit.explanation.tiles import tile_of_tokens
from longvit.formats.csv_rows import JOINED
from longvit.formats.explanation_json import EXPLANATION
from longvit.prediction.new_patients import (
    SlideSequence,
    describe_patients,
    find_stores_of_patients,
    folds_that_saw,
    slide_sequences,
)
from longvit.runs.folder import INPUTS
from longvit.runs.privacy import Pseudonyms, shareable_path
from longvit.tokens.joined import JoinedPieces
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.read import open_stores, require_scale
from longvit.training.loop import pick_device
from preprocessing.errors import CheckpointError, ConfigError, PipelineError, StoreError
from preprocessing.jobs.atomic_folder import claimed
from preprocessing.store.arrays import remedy
from preprocessing.store.store import PatchStore, open_store


@dataclass(frozen=True)
class ExplainResult:
    """Result of a run of `explain`."""

    folders: dict[str, Path]
    """Folder of each slide."""
    failed: dict[str, PipelineError]
    """Error of each slide (of a sequence, its slides joined by `;`) that could not be explained, and of each fold whose
    model could not be read."""


def run(config: ExplainConfig) -> ExplainResult:
    """Explain the contributions of parts of slides to predictions; slides that an earlier start explained are kept.

    The models are read once. Slides are explained in turn, each by all models in turn, so that memory is needed for
    one sequence. An error of one sequence does not stop the others.

    Returns:
        Folders `<slide_id>` with all files of each slide. A folder of an earlier run is replaced after all files are
        written.

    Raises:
        CheckpointError: The models cannot be read, the run is not finished, or a method cannot explain the models.
        StoreError: No store can be read, or a store does not fit the models.
        CohortError: The table cannot be read, or lacks the slide of a store.
        ConfigError: The models do not have the class, or the run does not have the fold. The only slide is too small or
            too large for a setting. Or a slide was explained with another model or other settings.
    """
    models = load_models(config.model, config.fold)
    config = settle_methods(models.first, config)
    require_target(models.first, config.target)
    if config.faithfulness:
        require_one_model(models, config.model)
    known = {one.slide_id: one.patient_id for one in models.membership.members} if models.membership else {}
    stores, patients = find_stores_of_patients(config.stores, config.table, known, pieces=config.pieces)
    encoder = models.first.required_encoder
    opened, unread = open_stores(stores, encoder.config.input)
    require_scale(opened.values(), encoder.trained_on, config.model)
    if models.fusion == "early":
        print(describe_patients(patients, config.table, models.fusion, known), file=sys.stderr)
    seen = folds_that_saw(models.membership, opened, patients) if models.membership else dict.fromkeys(patients, ())
    wanted = slide_sequences(patients, models.fusion, seen)
    errors = {name: next((unread[s] for s in one.slides if s in unread), None) for name, one in wanted.items()}
    failed = {name: error for name, error in errors.items() if error is not None}
    names = Pseudonyms.read(config.pseudonyms)
    whole = {name: one for name, one in wanted.items() if name not in failed}
    results = slide_results(config, models, opened, stores, [one.slides for one in whole.values()], names)
    todo = {
        name: one
        for name, one in whole.items()
        if config.overwrite or is_to_explain([results[slide] for slide in one.slides], config)
    }
    if not todo and not failed:
        print(f"{config.out}: explained, with the same model, settings and stores; nothing to do", file=sys.stderr)
    for model in models.models:
        model.required_encoder.execution = config.execution
        model.requires_grad_(False).to(pick_device(config.device))
    for name, one in track(todo.items(), "explain", total=len(todo), disable=len(todo) < 2):
        try:
            _explain_sequence(models, [results[slide] for slide in one.slides], _origin(models, one, names), config)
        except (StoreError, ConfigError, CheckpointError) as error:
            failed[name] = error
    if len(failed) == len(wanted):
        raise next(iter(failed.values()))
    done = {slide: results[slide].folder for name, one in whole.items() if name not in failed for slide in one.slides}
    return ExplainResult(done, {**models.failed, **failed})


def _origin(models: ExplainedModels, sequence: SlideSequence, names: Pseudonyms) -> Origin:
    origin = Origin(models.folds, tuple(fold for fold in sequence.seen_by if fold in models.folds))
    if len(sequence.slides) == 1:
        return origin
    return replace(origin, patient=names.of(sequence.patient), slides=tuple(map(names.of, sequence.slides)))


def _explain_sequence(
    models: ExplainedModels, slides: Sequence[SlideResult], origin: Origin, config: ExplainConfig
) -> None:
    """Explain the slides of a sequence, and write the folders of all of them, or none."""
    stores, folders = [open_store(one.path) for one in slides], [one.folder for one in slides]  # caches end with them
    for store in stores:
        _require_picture(store, config)
    pieces = JoinedPieces([SlidePieces(store, models.first.required_encoder.config.input) for store in stores])
    require_squares(pieces.rc_L2, config)
    question = ask(models, pieces, config.target, JOINED.join(folder.name for folder in folders))
    with ExitStack() as claims:
        partials = [claims.enter_context(claimed(folder, EXPLANATION)) for folder in folders]
        explained = explanations(question, stores, config, folders, origin)
        measured = measure_faithfulness(question, explained, config.occlusion_side) if config.faithfulness else None
        for slide, store, explanation, partial in zip(slides, stores, explained, partials, strict=True):
            _write_files(partial, explanation, store, config)
            if measured:
                save_curves(*measured, partial)
            slide.inputs.save(partial / INPUTS)
            explanation.save(partial)


def _write_files(folder: Path, explanation: Explanation, store: PatchStore, config: ExplainConfig) -> None:
    """Write the files of all maps, except those of single layers, which are columns of scores.csv."""
    image = slide_picture(store, config.overlay_mpp)
    for one in explanation.maps:
        if one.layer is None:
            write_files(folder, explanation, one, store, image, config.sheet_tiles, frame=config.geojson_frame)


def _require_picture(store: PatchStore, config: ExplainConfig) -> None:
    if not store.lattice:
        what = "its tiles are not cells of one grid, which maps need"
        raise StoreError(what, where=store.path, fix=remedy(store.path, "tile the slide with `longvit tile`"))
    if config.overlay_mpp is not None:
        picture_size(store, config.overlay_mpp)


def explanations(
    question: Question, stores: Sequence[PatchStore], config: ExplainConfig, folders: Sequence[Path], origin: Origin
) -> list[Explanation]:
    """Return all requested maps of the slides of a sequence; a slide is named like its folder.

    Args:
        question: Output to explain.
        stores: Store of each slide, in the order of the sequence.
        config: Settings.
        folders: Folder of each slide.
        origin: Models, and slides that were read together.
    """
    maps, pieces = mean_maps(question, config), question.tokens.pieces
    found: list[Explanation] = []
    for store, folder, slide, start in zip(stores, folders, pieces.slides, pieces.starts, strict=True):
        rc, per_side = slide.rc_in_sequence().numpy(), slide.source.per_side
        (width_l0, height_l0), own = store.side_l0, slice(start, start + len(rc))
        found.append(
            Explanation(
                slide_id=folder.name,
                store=shareable_path(store.path.with_name(f"{folder.name}.zarr"), folder),
                model=shareable_path(config.model, folder),
                target=question.target,
                prediction=question.prediction,
                size_l0=store.size_l0,
                side_l0=(width_l0 / per_side, height_l0 / per_side),
                mpp=store.mpp_l0,
                rc=rc,
                maps=tuple(_of_slide(one, own, joined=len(stores) > 1) for one in maps),
                origin=origin,
                piece=store.piece[tile_of_tokens(rc, store.rc, per_side)] if "piece" in store.arrays else None,
            )
        )
    return found


def _of_slide(one: ScoreMap, own: slice, *, joined: bool) -> ScoreMap:
    return replace(one, scores=one.scores[own], sequence=one.scores) if joined else one


def measure_faithfulness(
    question: Question, explained: Sequence[Explanation], side: int
) -> tuple[dict[str, Curves], dict[str, Curves], str]:
    """Return the fall and rise of the output by each map over all layers, by orders independent of the model, its name.

    Args:
        question: Output of one model.
        explained: Maps to measure, of each slide of the sequence.
        side: Side of the squares that are removed and added, tokens.
    """
    read = next(question.of_each_model())
    square_L, first = squares(read.rc_L2, side), explained[0]
    maps = {one.label: one.scores if one.sequence is None else one.sequence for one in first.maps if one.layer is None}
    blind: dict[str, list[np.ndarray]] = {}
    for one, square in zip(explained, torch.split(square_L.cpu(), [len(one.rc) for one in explained]), strict=True):
        width, height = (size / token for size, token in zip(one.size_l0, one.side_l0, strict=True))
        for name, scores in blind_orders(one.rc, square.numpy(), (height, width)).items():
            blind.setdefault(name, []).append(scores)
    orders = {name: np.concatenate(of_slides) for name, of_slides in blind.items()}
    found, reference = (
        {key: curves(read.explained, read.x_LD, square_L, torch.tensor(scores)) for key, scores in some.items()}
        for some in (maps, orders)
    )
    return found, reference, read.explained.quantity
