"""Verb `encode`: stores + encoder -> one vector per slide."""

import sys
from functools import partial
from pathlib import Path

import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from longvit.config import EncodeConfig
from longvit.encoding.progress import progress_bar, watched
from longvit.encoding.results import (
    SlideResult,
    fingerprint,
    load_result,
    origin_of,
    read_encoded_slides,
    result_file,
    save_result,
    write_representations,
)
from longvit.encoding.slide import encode_slide
from longvit.model import LongViT, load_encoder, load_official
from longvit.model.attention.plan import AttentionPlan
from longvit.model.cost import work_per_token
from longvit.model.official import preset_config
from longvit.runs.folder import REPRESENTATIONS, open_run, settings_of
from longvit.runs.input_hashes import read_inputs
from longvit.runs.outcome import Outcome
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.read import open_stores, require_one_scale, require_scale
from longvit.training.loop import begin, pick_device
from longvit.training.mesh import Mesh, open_mesh
from preprocessing.errors import ConfigError, StoreError
from preprocessing.store.store import find_stores

_DTYPES = {"32": torch.float32, "bf16": torch.bfloat16}


def run(config: EncodeConfig) -> Outcome:
    """Encode every slide of a folder; slides that an earlier start encoded from the same stores are kept.

    In a mesh, `data` ranks take turns with the slides, and the first rank of a sequence writes the slide's file.

    Raises:
        CheckpointError: The encoder does not exist, or its weights do not fit.
        StoreError: There are no stores, the stores have several resolutions, or they cannot provide the encoder's
            tokens.
        ConfigError: No encoder is named, the folder contains another run, the ranks of a mesh disagree, or a slide has
            fewer tokens than ranks.
        RankError: Another process of the mesh has stopped.
    """
    with open_mesh(config.execution, config.device) as mesh:
        return _run(config, mesh)


def _run(config: EncodeConfig, mesh: Mesh) -> Outcome:
    stores = find_stores(config.stores)
    begin(config)
    encoder = build_encoder(config)
    encoder.execution, encoder.group = config.execution, mesh.sequence
    opened, failed = open_stores(stores, encoder.config.input)
    readable = {slide_id: stores[slide_id] for slide_id in opened}
    require_one_scale(list(readable.values()))
    require_scale(opened.values(), encoder.trained_on, config.checkpoint)
    slides = {slide_id: SlidePieces(store, encoder.config.input) for slide_id, store in opened.items()}
    mesh.require_tokens({slide_id: len(pieces.rc_L2) for slide_id, pieces in slides.items()})
    encoder = encoder.narrowed(_DTYPES[config.precision]).to(pick_device(config.device))
    mark = fingerprint(encoder)
    origins = {slide_id: origin_of(mark, pieces.store) for slide_id, pieces in slides.items()}
    files = {"checkpoint": config.checkpoint and encoder_file(config.checkpoint), "official": config.official}
    inputs = read_inputs(files, readable, encoder.config.input)
    mesh.require_same("settings, slides or weights", (settings_of(config), inputs.stores, inputs.files, origins))
    read = partial(load_result, width=encoder.config.width, with_tokens=config.keep_tokens)
    read_all = lambda: [read(result_file(config.out, slide_id), origins[slide_id]) for slide_id in slides]
    opening = open_run(config, "encode", inputs, config.out / REPRESENTATIONS, adds_slides=True)
    with mesh.entered_by_first(opening) as run:
        done = mesh.from_first(lambda: [result.slide_id for result in read_all() if result])
        todo = [slide_id for slide_id in slides if slide_id not in done]
        if not todo and mesh.from_first(lambda: run.finished and set(read_encoded_slides(config.out)) == set(slides)):
            mesh.from_first(run.say_finished)
            return Outcome(run.result, failed)
        mesh.from_first(run.begin)
        todo = todo[mesh.data_part]
        with progress_bar() as bar:
            task = bar.add_task("encode", total=sum(_work(encoder, slides[slide_id]) for slide_id in todo))
            for slide_id in todo:
                try:
                    result, tokens = _encode(encoder, slide_id, slides[slide_id], config, bar, task)
                except StoreError as error:
                    failed[slide_id] = error
                else:
                    if mesh.sequence is None or mesh.sequence.rank == 0:
                        save_result(result_file(config.out, slide_id), result, origins[slide_id], tokens)
        failed = {name: error for of_rank in mesh.of_all(failed) for name, error in of_rank.items()}
        write = lambda: write_representations(config.out, [result for result in read_all() if result])
        return Outcome(mesh.from_first(write), failed)


def build_encoder(config: EncodeConfig) -> LongViT:
    """Build the encoder that a config names; a preset without weights gets seeded random weights, with a warning.

    Raises:
        CheckpointError: The preset or file does not exist, or the weights do not fit.
        ConfigError: No encoder is named.
    """
    if config.checkpoint is not None:
        return load_encoder(encoder_file(config.checkpoint))
    if config.preset is None:
        raise ConfigError(
            "no encoder is named",
            where="checkpoint",
            fix="give --checkpoint encoder.safetensors, or --preset NAME --official FILE.pth",
        )
    if config.official is not None:
        return load_official(config.official, config.preset)
    encoder = LongViT(preset_config(config.preset)).eval()
    print(f"warning: {config.preset} has random weights: use it only to measure the cost", file=sys.stderr)
    return encoder


def encoder_file(checkpoint: Path) -> Path:
    """Return the file of an encoder, given as the file itself or as the folder of the run that wrote it."""
    return checkpoint / "encoder.safetensors" if checkpoint.is_dir() else checkpoint


def _work(encoder: LongViT, pieces: SlidePieces) -> float:
    tokens, config = len(pieces.rc_L2), encoder.config
    return work_per_token(config, AttentionPlan.of(config, (tokens,), encoder.execution)).of_slide(tokens, config)


def _encode(
    encoder: LongViT, slide_id: str, pieces: SlidePieces, config: EncodeConfig, bar: Progress, task: TaskID
) -> tuple[SlideResult, dict[str, Tensor]]:
    """Encode one slide; return its result, and further tensors to keep."""
    tokens, before = len(pieces.rc_L2), bar.tasks[task].completed
    work = work_per_token(encoder.config, AttentionPlan.of(encoder.config, (tokens,), encoder.execution))
    of = f"{slide_id}: {tokens:,} tokens"

    def embedded(count: int) -> None:
        bar.update(task, advance=count * work.embedding, description=f"{of}, reading")

    def through(block: int, amount: float) -> None:
        bar.update(task, advance=amount, description=f"{of}, block {block} of {encoder.config.depth}")

    try:
        with watched(encoder, work, through):
            encoded = encode_slide(encoder, pieces, config.loader_workers, embedded)
    finally:  # a slide that failed counts as done in the bar
        bar.update(task, completed=before + work.of_slide(tokens, encoder.config))
    kept = {}
    if config.keep_tokens:
        tokens_LD = encoded.tokens_BLD[0] if encoder.group is None else encoder.group.joined(encoded.tokens_BLD[0])
        kept = {"tokens": tokens_LD.cpu().contiguous(), "rc": pieces.rc_in_sequence()}
    vector_D = encoded.slide_BD[0].float().cpu()
    return SlideResult(slide_id, vector_D, tokens), kept
