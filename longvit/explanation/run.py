"""Verb `explain`: model + store -> heatmap and token scores."""

from pathlib import Path

import numpy as np
import torch

from longvit.config import ExplainConfig, PixelInput
from longvit.explanation.attribution import token_contributions
from longvit.explanation.heatmap import heatmap, overlay
from longvit.finetuning.model import SlideModel, load_model
from longvit.tokens.read import slide_tokens
from longvit.training import pick_device, write_rows
from preprocessing.errors import CheckpointError, ConfigError
from preprocessing.frames import l0_from_rc
from preprocessing.store import PatchStore, open_store


def run(config: ExplainConfig) -> Path:
    """Draw what each token gave to a slide's prediction.

    Returns:
        The picture, `<slide_id>_heatmap.png`; the scores lie beside it in `<slide_id>_tokens.csv`.

    Raises:
        CheckpointError: The model cannot be read.
        StoreError: The store cannot be read, or does not fit the model.
        ConfigError: The model has no such class.
    """
    model, store = load_model(config.model), open_store(config.store)
    _require_mean(model, config.model)
    device = pick_device(config.device)
    batch = slide_tokens(store, model.encoder.config.input).to(device)
    model = model.to(device)
    with torch.inference_mode():
        outputs = model(batch)[0].float().cpu()
    output = _output_index(model, outputs, config.target)
    scores = token_contributions(model, batch, output).float().cpu().numpy()
    rc = batch.rc_BL2[0].cpu().numpy()
    side_l0 = np.array(store.attributes["side_l0"]) * _token_st(store, model) / store.tile_st
    config.out.mkdir(parents=True, exist_ok=True)
    _write_scores(config.out / f"{store.slide_id}_tokens.csv", scores, rc, side_l0)
    title, label = _words(model, outputs, output)
    picture = config.out / f"{store.slide_id}_heatmap.png"
    _draw(picture, store, heatmap(scores, rc), side_l0, f"{store.slide_id}: {title}", label)
    return picture


def _require_mean(model: SlideModel, path: Path) -> None:
    encoder = model.encoder.config
    if encoder.pooling != "mean" or encoder.final_norm != "none":
        raise CheckpointError(
            f"the slide's vector is not the plain mean of its tokens (pooling {encoder.pooling}, "
            f"final_norm {encoder.final_norm}), so tokens have no exact shares of the prediction",
            where=path,
            fix="finetune an encoder with pooling mean and final_norm none",
        )


def _output_index(model: SlideModel, outputs: torch.Tensor, target: str | None) -> int:
    if target is None:
        return int(outputs.argmax())
    if target not in model.classes:
        raise ConfigError(
            f"the model has no class {target}",
            where="target",
            fix=f"choose from {', '.join(model.classes)}"
            if model.classes
            else "leave target out: it predicts a hazard",
        )
    return model.classes.index(target)


def _token_st(store: PatchStore, model: SlideModel) -> int:
    """Side of a token in store pixels."""
    source = model.encoder.config.input
    return source.patch_px if isinstance(source, PixelInput) else store.tile_st


def _words(model: SlideModel, outputs: torch.Tensor, output: int) -> tuple[str, str]:
    """What was predicted, and what the scale of the picture measures."""
    if not model.classes:
        return f"log hazard {outputs[0]:+.2f}", "share of the log hazard"
    name = model.classes[output]
    return f"P({name}) = {outputs.softmax(0)[output]:.2f}", f"share of the logit of {name}"


def _write_scores(path: Path, scores: np.ndarray, rc: np.ndarray, side_l0: np.ndarray) -> None:
    xy_l0 = l0_from_rc(rc, side_l0)
    places = zip(xy_l0.tolist(), rc.tolist(), scores.tolist(), strict=True)
    write_rows(path, [{"x_l0": x, "y_l0": y, "row": r, "column": c, "score": s} for (x, y), (r, c), s in places])


def _draw(path: Path, store: PatchStore, grid: np.ndarray, side_l0: np.ndarray, title: str, label: str) -> None:
    scale = store.overview.shape[1] / store.attributes["size_l0"][0]
    extent_px = (grid.shape[1] * side_l0[0] * scale, grid.shape[0] * side_l0[1] * scale)
    temporary = path.with_name(f".{path.name}")
    overlay(store.overview, grid, extent_px, title, label).savefig(temporary, dpi=150, format="png")
    temporary.replace(path)
