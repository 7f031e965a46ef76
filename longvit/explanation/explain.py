"""Verb `explain`: model + store -> scores of every token, pictures, and files for QuPath."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longvit.config import ExplainConfig
from longvit.encoding.slide import embed_slide
from longvit.explanation.attribution import squares
from longvit.explanation.colour import ranked
from longvit.explanation.faithfulness import blind_orders, curves, save_curves
from longvit.explanation.files import write_files
from longvit.explanation.methods import ExplainedSlide, require_squares, score_maps, settle_methods
from longvit.explanation.model_output import ModelOutput
from longvit.explanation.picture import slide_picture
from longvit.explanation.result import Explanation
from longvit.explanation.tiles import tile_of_tokens
from longvit.formats.explanation_json import EXPLANATION, is_explanation
from longvit.model.predictor import SlideModel, load_model
from longvit.runs.folder import INPUTS, refuse_others, settings_of
from longvit.runs.input_hashes import RecordedInputs, read_inputs
from longvit.runs.privacy import Pseudonyms, shareable_path
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.read import open_stores, require_scale
from longvit.tokens.source import token_source
from longvit.training.loop import pick_device
from preprocessing.errors import ConfigError, PipelineError, StoreError
from preprocessing.jobs.atomic_folder import claimed
from preprocessing.store.arrays import remedy
from preprocessing.store.piece import all_pieces
from preprocessing.store.store import PatchStore, find_stores

_THREADS = 2  # threads that read and decode tiles


@dataclass(frozen=True)
class ExplainResult:
    """Result of a run of `explain`."""

    folders: dict[str, Path]
    """Folder of each slide."""
    failed: dict[str, PipelineError]
    """Error of each slide that could not be explained."""


def run(config: ExplainConfig) -> ExplainResult:
    """Explain the contributions of parts of slides to predictions; slides that an earlier start explained are kept.

    Returns:
        Folders `<slide_id>` with all files of each slide. A folder of an earlier run is replaced after all files are
        written.

    Raises:
        CheckpointError: The model cannot be read, or a method cannot explain it.
        StoreError: No store can be read, or a store does not fit the model.
        ConfigError: The model does not have the class, or the only slide is too small or too large for a setting. Or a
            slide was explained with another model or other settings.
    """
    model = load_model(config.model)
    config = settle_methods(model, config)
    stores = find_stores(config.store)
    stores = all_pieces(stores) if config.pieces else stores
    encoder = model.required_encoder
    opened, failed = open_stores(stores, encoder.config.input)
    require_scale(opened.values(), encoder.trained_on, config.model)
    names = Pseudonyms.read(config.pseudonyms)
    folders = {slide: config.out / names.of(slide) for slide in opened}
    inputs = _inputs(config, opened, model, names)
    todo = [slide for slide in opened if config.overwrite or _is_to_explain(folders[slide], inputs[slide])]
    if not todo and not failed:
        print(f"{config.out}: explained, with the same model, settings and stores; nothing to do", file=sys.stderr)
    encoder.execution = config.execution
    model = model.requires_grad_(False).to(pick_device(config.device))
    for slide in todo:
        try:
            _explain_slide(model, opened[slide], config, inputs[slide], folders[slide])
        except (StoreError, ConfigError) as error:
            failed[slide] = error
    if len(failed) == len(stores):
        raise next(iter(failed.values()))
    return ExplainResult({slide: folder for slide, folder in folders.items() if slide not in failed}, failed)


def _inputs(
    config: ExplainConfig, stores: Mapping[str, PatchStore], model: SlideModel, names: Pseudonyms
) -> dict[str, RecordedInputs]:
    """Return settings, model and store of each slide's explanation; with a key, the store's hashes are keyed too."""
    settings = {key: value for key, value in settings_of(config).items() if key != "pieces"}  # each has a folder
    without_frame = {key: value for key, value in settings.items() if key != "geojson_frame"}
    paths = {slide: store.path for slide, store in stores.items()}
    every = read_inputs({"model": config.model}, paths, model.required_encoder.config.input)
    return {
        slide: every.model_copy(
            update={
                "settings": settings if stores[slide].bounds_l0 else without_frame,  # the frames differ only there
                "stores": {names.of(slide): tuple(map(names.of, store))},
            }
        )
        for slide, store in every.stores.items()
    }


def _is_to_explain(folder: Path, inputs: RecordedInputs) -> bool:
    """Return whether a slide is new or its store has changed; a change is printed.

    Raises:
        ConfigError: The slide was explained with another model or other settings.
    """
    if not is_explanation(folder):
        return True
    return bool(refuse_others(folder, RecordedInputs.read(folder / INPUTS), inputs, adds_slides=True))


def _explain_slide(
    model: SlideModel, store: PatchStore, config: ExplainConfig, inputs: RecordedInputs, folder: Path
) -> None:
    if not store.lattice:
        what = "its tiles are not cells of one grid, which maps need"
        raise StoreError(what, where=store.path, fix=remedy(store.path, "tile the slide with `longvit tile`"))
    image = slide_picture(store, config.overlay_mpp)
    question = ask(model, store, config.target)
    require_squares(question, config)
    with claimed(folder, EXPLANATION) as partial:
        explanation = explain_slide(question, store, config, folder)
        for one in explanation.maps:
            if one.layer is None:  # single layers are columns of scores.csv
                write_files(partial, explanation, one, store, image, config.sheet_tiles, frame=config.geojson_frame)
        if config.faithfulness:
            measure_faithfulness(question, explanation, config.occlusion_side, partial)
        inputs.save(partial / INPUTS)
        explanation.save(partial)


def ask(model: SlideModel, store: PatchStore, target: str | None) -> ExplainedSlide:
    """Return a slide's embedded tokens, on the model's device, and the output to explain.

    Raises:
        StoreError: The store does not fit the model, or a tile is damaged.
        ConfigError: The model does not have the class.
    """
    encoder = model.required_encoder
    pieces = SlidePieces(store, encoder.config.input)
    x_LD = embed_slide(encoder, pieces, _THREADS)[0].clone()  # out of inference mode, to allow gradients
    with torch.no_grad():
        outputs_O = model.head(ModelOutput(model).slide(x_LD)[None])[0].float().cpu()
    explained = ModelOutput(model, _output_index(model, outputs_O, target))
    return ExplainedSlide(explained, x_LD, pieces.rc_in_sequence().to(x_LD.device), outputs_O)


def explain_slide(question: ExplainedSlide, store: PatchStore, config: ExplainConfig, folder: Path) -> Explanation:
    """Return all requested maps of a slide, which is named like its folder."""
    model = question.explained.model
    maps = score_maps(question, config)
    if config.rank:
        maps = tuple(replace(m, scores=ranked(m.scores, m.signed), meaning=f"rank of: {m.meaning}") for m in maps)
    per_side = token_source(store, model.required_encoder.config.input).per_side
    (width_l0, height_l0), rc = store.side_l0, question.rc_L2.cpu().numpy()
    return Explanation(
        slide_id=folder.name,
        store=shareable_path(store.path.with_name(f"{folder.name}.zarr"), folder),
        model=shareable_path(config.model, folder),
        target=question.explained.target,
        prediction=model.task.predictions(question.outputs_O, model.classes),
        size_l0=store.size_l0,
        side_l0=(width_l0 / per_side, height_l0 / per_side),
        mpp=store.mpp_l0,
        rc=rc,
        maps=maps,
        piece=store.piece[tile_of_tokens(rc, store.rc, per_side)] if "piece" in store.arrays else None,
    )


def measure_faithfulness(question: ExplainedSlide, explanation: Explanation, side: int, folder: Path) -> None:
    """Write the fall and rise of the output by each map over all layers, and by orders independent of the model.

    Args:
        question: Output and tokens.
        explanation: Maps to measure.
        side: Side of the squares that are removed and added, tokens.
        folder: Folder to write to.
    """
    explained, x_LD, square_L = question.explained, question.x_LD, squares(question.rc_L2, side)
    width, height = (size / token for size, token in zip(explanation.size_l0, explanation.side_l0, strict=True))
    maps = {one.label: one.scores for one in explanation.maps if one.layer is None}
    blind = blind_orders(explanation.rc, square_L.cpu().numpy(), (height, width))
    found, reference = (
        {key: curves(explained, x_LD, square_L, torch.tensor(scores)) for key, scores in some.items()}
        for some in (maps, blind)
    )
    save_curves(found, reference, explained.quantity, folder)


def _output_index(model: SlideModel, outputs_O: Tensor, target: str | None) -> int:
    if target is None:
        probabilities = list(model.task.predictions(outputs_O, model.classes).values())
        return int(np.argmax(probabilities)) if model.classes else 0
    if target not in model.classes:
        raise ConfigError(
            f"the model has no class {target}",
            where="target",
            fix=f"choose from {', '.join(model.classes)}" if model.classes else "leave target out: it predicts a risk",
        )
    return model.classes.index(target)
