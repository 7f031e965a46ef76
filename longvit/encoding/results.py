"""Results of `encode`: a file per slide, which a later start can use again, and one table of all slides."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, PositiveInt, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from longvit.formats.csv_rows import read_rows, write_rows
from longvit.model.weights import TensorSpec, open_weights
from longvit.runs.folder import REPRESENTATIONS
from preprocessing.errors import CheckpointError
from preprocessing.jobs.files import written_whole
from preprocessing.store.store import PatchStore

_METADATA = "longvit_encoded"


class _Origin(BaseModel):
    """Metadata of a result file."""

    origin: str
    n_tokens: PositiveInt


@dataclass(frozen=True)
class SlideResult:
    """Vector of a slide, and the number of its tokens."""

    slide_id: str
    vector_D: Tensor
    """The slide's vector, float32."""
    n_tokens: int
    """Number of tokens in the slide's sequence."""

    def row(self) -> dict[str, object]:
        """Return the slide's row of the table; nine digits restore every float32."""
        values = {f"v{i}": f"{value:.9g}" for i, value in enumerate(self.vector_D.tolist())}
        return {"slide_id": self.slide_id, "n_tokens": self.n_tokens, **values}


def result_file(folder: Path, slide_id: str) -> Path:
    """Return the file of a slide's result in a run's folder."""
    return folder / "slides" / f"{slide_id}.safetensors"


def save_result(path: Path, result: SlideResult, origin: str, tokens: dict[str, Tensor]) -> None:
    """Write one slide's result, completely or not at all.

    Args:
        path: File to write.
        result: Vector and number of tokens.
        origin: Hash of the result's inputs (`origin_of`).
        tokens: Further tensors to keep: `tokens` (L, D) and `rc` (L, 2); may be empty.
    """
    known = _Origin(origin=origin, n_tokens=result.n_tokens)
    with written_whole(path) as temporary:
        save_file({"slide": result.vector_D, **tokens}, temporary, {_METADATA: known.model_dump_json()})


def load_result(path: Path, origin: str, width: int, *, with_tokens: bool = False) -> SlideResult | None:
    """Return a slide's result, or None unless its file is complete and of the same store and encoder.

    Args:
        path: File to read; it may be missing or damaged.
        origin: Hash of the result's inputs, as in `save_result`.
        width: Width D of the encoder.
        with_tokens: Whether the file must also contain the vectors of the tokens.
    """
    try:
        with open_weights(path) as weights:
            known = _Origin.model_validate_json(weights.metadata.get(_METADATA, ""))
            shapes = {"slide": (width,)} | ({"tokens": (known.n_tokens, width)} if with_tokens else {})
            whole = all(weights.specs.get(name) == TensorSpec(shape) for name, shape in shapes.items())
            vector_D = weights.read("slide") if whole and known.origin == origin else None
    except (CheckpointError, ValidationError):  # not written yet, or damaged since
        return None
    if vector_D is None or not vector_D.isfinite().all():
        return None
    return SlideResult(path.stem, vector_D.float(), known.n_tokens)


def fingerprint(encoder: nn.Module) -> str:
    """Return the SHA-256 of an encoder's weights and their names."""
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def origin_of(encoder: str, store: PatchStore) -> str:
    """Return a hash of a result's inputs: the encoder's fingerprint, the store's attributes and its tiles."""
    return hashlib.sha256(encoder.encode() + store.identity().encode() + store.rc.tobytes()).hexdigest()


def read_encoded_slides(folder: Path) -> list[str]:
    """Return the slide ids of `representations.csv`."""
    return [row["slide_id"] for row in read_rows(folder / REPRESENTATIONS)]


def write_representations(folder: Path, results: list[SlideResult]) -> Path:
    """Write `representations.csv`: `slide_id, n_tokens`, then the vector as `v0, v1, ...`; one row per slide."""
    path = folder / REPRESENTATIONS
    write_rows(path, [result.row() for result in results])
    return path
