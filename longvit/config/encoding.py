"""Settings of `encode`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import PositiveInt, model_validator

from longvit.config import required
from longvit.config.base import RunConfig
from longvit.config.encoder import ExecutionConfig, ForwardExecution


class EncodeConfig(RunConfig):
    """Stores -> one vector per slide."""

    stores: Annotated[Path, required.ANY_STORES]
    """A store, or a folder of stores."""
    checkpoint: Annotated[Path | None, required.ENCODER] = None
    """Encoder: an `encoder.safetensors`, the folder of the run that wrote it, or a fold's `model.safetensors`."""
    preset: str | None = None
    """Published encoder to use instead, by name, for example longvit_small_32768 or gigapath_slide_enc12l768d."""
    official: Annotated[Path | None, required.WEIGHTS] = None
    """Published weights of the preset, a .pth file. Without them, weights are random: good for timing, not for use."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic: float32, or bfloat16 in all layers with weights; between these layers tokens stay in float32."""
    loader_workers: PositiveInt = 2
    """Threads that read and decode tiles ahead of the encoder."""
    execution: ForwardExecution = ExecutionConfig()
    """Execution of the encoder; a run can be continued with other values."""
    keep_tokens: bool = False
    """Also keep the vector and the position of every token, next to the slide's vector."""

    @model_validator(mode="after")
    def _encoder_given_once(self) -> "EncodeConfig":
        if self.checkpoint is not None and self.preset is not None:
            raise ValueError("give checkpoint or preset, not both: each names an encoder")
        if self.official is not None and self.preset is None:
            raise ValueError("official weights need the preset that sets their shape")
        return self
