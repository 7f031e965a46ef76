"""Settings of explanations."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from longvit.config import required
from longvit.config.base import Device
from longvit.config.encoder import ExecutionConfig
from preprocessing.config import StageConfig

Method = Literal["contribution", "received", "rollout", "pooling", "gradient", "integrated_gradients", "occlusion"]


class ExplainConfig(StageConfig):
    """Model + store -> which parts of the slide the prediction draws on."""

    model: Annotated[Path, required.MODEL]
    """A fold's `model.safetensors`."""
    store: Annotated[Path, required.ANY_STORES]
    """The slide's store, or a folder of stores."""
    out: Path
    """Folder that receives a folder named like each slide: scores, pictures, and files for QuPath."""
    target: str | None = None
    """Class to explain; default the predicted one. A survival model explains its log hazard."""
    methods: tuple[Method, ...] | None = Field(default=None, min_length=1)
    """Ways to explain; default `contribution`, where a class token is the slide's vector `integrated_gradients`, with
    `received` and `rollout`. `contribution`: exact share of each token behind the encoder; `integrated_gradients`: from
    the output back to the embedded tokens, on the way from a slide of average tokens; `gradient`: the same at the slide
    alone, as many times faster as `gradient_steps` says, less true; `occlusion`: what the output loses without a square
    of tokens (slow); `received`: attention received, in each layer and in all; `rollout`: attention rollout through all
    layers; `pooling`: weights of attention pooling. The last three show where the model looks, whatever it concludes.
    """
    rank: bool = False
    """Give ranks in place of scores, so that each colour covers the same area."""
    overlay_mpp: PositiveFloat | None = None
    """Resolution of the overlay, micrometres per pixel; default that of the store's small overview."""
    sheet_tiles: PositiveInt = 12
    """Tiles with the highest scores, and as many with the lowest, on the sheet of each method."""
    gradient_steps: PositiveInt = 16
    """Gradients that `integrated_gradients` takes between a slide of average tokens and the slide."""
    occlusion_side: PositiveInt = 4
    """Side of the squares that `occlusion` and `faithfulness` take out, tokens."""
    faithfulness: bool = False
    """Measure whether each map tells the truth of this slide: what the output does while squares of tokens leave, or
    come into an empty slide, highest scores first, beside a random order and one from the slide's centre; 22 passes a
    map."""
    pseudonyms: Path | None = None
    """File with a key: the slide goes by a name made of the key and its id (HMAC-SHA256). A file that does not exist is
    made; the same key gives the same names in `evaluate`, `explain` and `view`."""
    device: Device = "auto"
    """Where to compute."""
    execution: ExecutionConfig = ExecutionConfig(recompute="blocks")
    """How the encoder is computed; gradients of a million tokens need `recompute: blocks`."""
    overwrite: bool = False
    """Replace explanations of the same slides that were made with another model or other settings."""
