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
from longvit.model.cost import work_per_token
from longvit.model.official import preset_config
from longvit.runs.folder import REPRESENTATIONS, open_run
from longvit.runs.input_hashes import read_inputs
from longvit.runs.outcome import Outcome
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.read import open_stores, require_one_scale, require_scale
from longvit.training.loop import begin, pick_device
from preprocessing.errors import ConfigError, StoreError
from preprocessing.store.store import find_stores

_DTYPES = {"32": torch.float32, "bf16": torch.bfloat16}


def run(config: EncodeConfig) -> Outcome:
    """Encode every slide of a folder; slides that an earlier start encoded from the same stores are kept.

    Raises:
        CheckpointError: The encoder does not exist, or its weights do not fit.
        StoreError: There are no stores, the stores have several resolutions, or they cannot provide the encoder's
            tokens.
        ConfigError: No encoder is named, or the folder contains another run.
    """
    stores = find_stores(config.stores)
    begin(config)
    encoder = build_encoder(config)
    encoder.execution = config.execution
    opened, failed = open_stores(stores, encoder.config.input)
    readable = {slide_id: stores[slide_id] for slide_id in opened}
    require_one_scale(list(readable.values()))
    require_scale(opened.values(), encoder.trained_on, config.checkpoint)
    slides = {slide_id: SlidePieces(store, encoder.config.input) for slide_id, store in opened.items()}
    encoder = encoder.narrowed(_DTYPES[config.precision]).to(pick_device(config.device))
    mark = fingerprint(encoder)
    origins = {slide_id: origin_of(mark, pieces.store) for slide_id, pieces in slides.items()}
    files = {"checkpoint": config.checkpoint and encoder_file(config.checkpoint), "official": config.official}
    inputs = read_inputs(files, readable, encoder.config.input)
    with open_run(config, "encode", inputs, config.out / REPRESENTATIONS, adds_slides=True) as run:
        read = partial(load_result, width=encoder.config.width, with_tokens=config.keep_tokens)
        results = {slide_id: read(result_file(config.out, slide_id), origins[slide_id]) for slide_id in slides}
        todo = {slide_id: pieces for slide_id, pieces in slides.items() if results[slide_id] is None}
        if not todo and run.finished and set(read_encoded_slides(config.out)) == set(slides):
            run.say_finished()
            return Outcome(run.result, failed)
        run.begin()
        with progress_bar() as bar:
            task = bar.add_task("encode", total=sum(_work(encoder, pieces) for pieces in todo.values()))
            for slide_id, pieces in todo.items():
                try:
                    result, tokens = _encode(encoder, slide_id, pieces, config, bar, task)
                except StoreError as error:
                    failed[slide_id] = error
                else:
                    results[slide_id] = result
                    save_result(result_file(config.out, slide_id), result, origins[slide_id], tokens)
        return Outcome(write_representations(config.out, [result for result in results.values() if result]), failed)


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
    tokens = len(pieces.rc_L2)
    return work_per_token(encoder.config, encoder.plan((tokens,))).of_slide(tokens, encoder.config)


def _encode(
    encoder: LongViT, slide_id: str, pieces: SlidePieces, config: EncodeConfig, bar: Progress, task: TaskID
) -> tuple[SlideResult, dict[str, Tensor]]:
    """Encode one slide; return its result, and further tensors to keep."""
    tokens, before = len(pieces.rc_L2), bar.tasks[task].completed
    work, of = work_per_token(encoder.config, encoder.plan((tokens,))), f"{slide_id}: {tokens:,} tokens"

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
        kept = {"tokens": encoded.tokens_BLD[0].cpu().contiguous(), "rc": pieces.rc_in_sequence()}
    vector_D = encoded.slide_BD[0].float().cpu()
    return SlideResult(slide_id, vector_D, tokens), kept
