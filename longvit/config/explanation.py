"""Settings of `explain`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from longvit.config import required
from longvit.config.base import Device
from longvit.config.encoder import ExecutionConfig, ForwardExecution
from preprocessing.config import StageConfig

Method = Literal["contribution", "received", "rollout", "pooling", "gradient", "integrated_gradients", "occlusion"]


class ExplainConfig(StageConfig):
    """Models + stores -> maps of the parts of each slide that the prediction draws on."""

    model: Annotated[Path, required.MODEL]
    """Folder of a finished `longvit finetune`, whose models are averaged as in `predict`: numbers and maps are means
    over the folds. Or the folder or the `model.safetensors` of one fold."""
    fold: NonNegativeInt | None = None
    """Fold of the run, to explain its model alone, for example for patients whom this fold tested."""
    stores: Annotated[Path, required.ANY_STORES]
    """Store of a slide, or a folder of stores, tiled as the stores that the models were trained on."""
    table: Annotated[Path | None, required.TABLE] = None
    """Table with the patient of each slide, as in `predict`; the run's own slides need none. If models read all slides
    of a patient as one sequence (`fusion: early`), a patient has one number and one map, written slide by slide with
    the same colours."""
    out: Path
    """Folder for one subfolder per slide, named after the slide: scores, pictures, and files for QuPath."""
    target: str | None = None
    """Class to explain; default: the predicted class. A survival model explains its log hazard."""
    methods: tuple[Method, ...] | None = Field(default=None, min_length=1)
    """Explanation methods; default: `contribution`, `received` and `rollout`, with `integrated_gradients` in place of
    `contribution` if the slide's vector is a class token. `contribution`: exact share of each token of the encoder's
    output in the prediction. `integrated_gradients`: gradients from the output back to the embedded tokens, on the path
    from a slide of average tokens to this slide. `gradient`: the same gradient at this slide alone; faster by a factor
    of `gradient_steps`, less faithful. `occlusion`: drop of the output without a square of tokens (slow). `received`:
    attention received, in each layer and in all. `rollout`: attention rollout through all layers. `pooling`: weights of
    attention pooling. The last three show the model's attention, for any target."""
    rank: bool = False
    """Write ranks in place of scores, so that each colour covers the same area."""
    overlay_mpp: PositiveFloat | None = None
    """Resolution of the overlay, micrometres per pixel; default: that of the store's small overview."""
    sheet_tiles: PositiveInt = 12
    """Tiles with the highest scores on the sheet of each method, and as many with the lowest scores."""
    geojson_frame: Literal["qupath", "slide"] = "qupath"
    """Corner at which GeoJSON begins on slides with empty borders (MRXS, SCN, BIF): `qupath` for the corner of the
    scanned part, all that QuPath shows; `slide` for the corner of the whole slide."""
    pieces: bool = False
    """Explain each piece of tissue (`tile --pieces`) as a slide, for models whose patients are pieces."""
    gradient_steps: PositiveInt = 16
    """Gradients that `integrated_gradients` computes between a slide of average tokens and the slide."""
    occlusion_side: PositiveInt = 4
    """Side of the squares that `occlusion` and `faithfulness` remove, tokens."""
    faithfulness: bool = False
    """Measure whether each map is true to the model, in 22 forward passes per map. Squares of tokens are removed from
    the slide, or added to an empty slide, highest scores first. The change of the output is compared with a random
    order and with an order from the slide's centre. Only for the model of one fold."""
    pseudonyms: Path | None = None
    """File with a key. The slide gets a name made of the key and its id (HMAC-SHA256). A missing file is created; the
    same key gives the same names in `evaluate`, `explain` and `view`."""
    device: Device = "auto"
    """Device to compute on; `auto` takes the accelerator if there is one."""
    execution: ForwardExecution = ExecutionConfig(recompute="blocks")
    """Execution of the encoder; gradients of a million tokens need `recompute: blocks`."""
    overwrite: bool = False
    """Replace explanations of the same slides that were made with another model or other settings."""

    @model_validator(mode="after")
    def _one_process(self) -> "ExplainConfig":
        if self.execution.devices > 1 or self.execution.sequence_parallel > 1:
            raise ValueError("explain runs in one process: leave execution.devices and sequence_parallel at 1")
        return self
