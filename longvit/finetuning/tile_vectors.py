"""Vectors of tiles, the input of baselines: the store's embeddings, or the encoder's tokens averaged per tile."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from longvit.config import TokenInput
from longvit.encoding.slide import encode_slide
from longvit.model import LongViT
from longvit.model.weights import open_weights
from longvit.tokens.pieces import SlidePieces
from preprocessing.errors import CheckpointError
from preprocessing.jobs.files import written_whole
from preprocessing.store.store import open_store


@dataclass(frozen=True)
class TileVectors:
    """Vectors of a cohort's tiles, and their mean per slide; `prepare` computes vectors that stores do not contain.

    Args:
        folder: Folder for `<slide_id>.safetensors`: `mean` (1, E), and `tiles` (n, E) if the encoder reads pixels.
        stores: Store of every slide.
        source: Input of the run's encoder.
    """

    folder: Path
    stores: dict[str, Path]
    source: TokenInput

    def prepare(self, encoder: LongViT, device: torch.device, threads: int) -> None:
        """Compute the vectors that an earlier start has not computed, one slide at a time.

        Args:
            encoder: The encoder before its training for the task; it is used if it reads pixels.
            device: Device to compute on; the encoder is moved there.
            threads: Threads that read and decode tiles.
        """
        todo: Sequence[str] = [slide for slide in self.stores if not self._is_whole(slide)]
        self.folder.mkdir(parents=True, exist_ok=True)
        encoder = encoder.eval().to(device)
        for slide in track(todo, "tile vectors"):
            if self.source.features:
                kept = {"mean": self.tiles(slide).mean(dim=0, keepdim=True)}
            else:
                tiles_nE = averaged_per_tile(encoder, SlidePieces(open_store(self.stores[slide]), self.source), threads)
                kept = {"tiles": tiles_nE, "mean": tiles_nE.mean(dim=0, keepdim=True)}
            with written_whole(self._file(slide)) as temporary:
                save_file(kept, temporary)

    def tiles(self, slide: str) -> Float[Tensor, "n E"]:
        """Return the vectors of a slide's tiles, in the store's order."""
        if not self.source.features:
            return self._kept(slide, "tiles")
        return torch.from_numpy(open_store(self.stores[slide]).embeddings(self.source.features)).float()

    @property
    def width(self) -> int:
        """Width E of a vector."""
        return self.mean(next(iter(self.stores))).shape[1]

    def mean(self, slide: str) -> Float[Tensor, "1 E"]:
        """Return the mean vector of a slide's tiles."""
        return self._kept(slide, "mean")

    def _is_whole(self, slide: str) -> bool:
        names = {"mean"} if self.source.features else {"mean", "tiles"}
        try:
            with open_weights(self._file(slide)) as weights:
                return names <= set(weights.specs)
        except CheckpointError:  # not written yet, or damaged since
            return False

    def _kept(self, slide: str, name: str) -> Tensor:
        with safe_open(self._file(slide), "pt") as file:
            return file.get_tensor(name)

    def _file(self, slide: str) -> Path:
        return self.folder / f"{slide}.safetensors"


def averaged_per_tile(encoder: LongViT, pieces: SlidePieces, threads: int = 1) -> Float[Tensor, "n D"]:
    """Return the mean token of each tile, in the store's order; each token is in the context of its slide."""
    tokens_LD = encode_slide(encoder, pieces, threads).tokens_BLD[0]
    in_tiles_LD = tokens_LD[pieces.rank_L.to(tokens_LD.device)].float().cpu()
    return torch.segment_reduce(in_tiles_LD, "mean", lengths=torch.from_numpy(pieces.source.kept.sum(axis=1)))
