"""Readers of slide sequences: as tokens, or as vectors of a frozen encoder, which are computed once."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.progress import track
from safetensors import safe_open
from torch import Tensor

from longvit.config import FinetuneConfig
from longvit.encoding.results import SlideResult, fingerprint, load_result, origin_of, result_file, save_result
from longvit.encoding.slide import encode_slide
from longvit.finetuning.data import SequenceReader
from longvit.model import LongViT
from longvit.model.predictor import SlideModel
from longvit.tokens.sequences import Slides, read_tokens, sequence_pieces
from longvit.training.loop import pick_device
from longvit.training.mesh import current_mesh
from preprocessing.store.store import open_store


def sequence_reader(
    model: SlideModel, wanted: Sequence[Slides], stores: dict[str, Path], config: FinetuneConfig
) -> SequenceReader:
    """Return the function that reads the sequences of a fold.

    Args:
        model: The model; a frozen encoder encodes all sequences now, unless an earlier start has done so.
        wanted: Sequences of all folds.
        stores: Store of each slide.
        config: Settings, which decide whether the encoder is frozen, and name the run's folder for encoded sequences.

    Returns:
        For a frozen encoder its vectors, from memory; or, if attention pools its tokens, the tokens, from a file per
        sequence. Otherwise the tokens of the stores.
    """
    encoder = model.required_encoder
    share = encoder.group.share if encoder.group else None
    if not config.frozen:
        return partial(read_tokens, stores, encoder.config.input, share=share)
    keep_tokens = model.attention is not None
    folder = config.out / ("tokens" if keep_tokens else "representations")
    files = encode_sequences(encoder, wanted, stores, config, folder, keep_tokens=keep_tokens)
    if keep_tokens:
        return lambda slides: _read_tensor(files[slides], "tokens", share)[None]
    return {slides: _read_tensor(file, "slide")[None] for slides, file in files.items()}.__getitem__


def encode_sequences(
    encoder: LongViT,
    wanted: Sequence[Slides],
    stores: dict[str, Path],
    config: FinetuneConfig,
    folder: Path,
    *,
    keep_tokens: bool,
) -> dict[Slides, Path]:
    """Encode each sequence once, like `longvit encode`: in float32, one file and one sequence in memory at a time.

    An existing file is used if it was computed with the same weights from the same stores. In a mesh, `data` ranks take
    turns with the sequences.

    Args:
        encoder: The encoder; it is on the CPU afterwards.
        wanted: Sequences to encode.
        stores: Store of each slide.
        config: Settings with the device, and the number of reading threads.
        folder: Folder for the files.
        keep_tokens: Whether to keep the vector of every token next to the sequence's vector.

    Returns:
        The file of each sequence, with tensors `slide` (D) and, if kept, `tokens` (L, D).
    """
    mark = fingerprint(encoder)
    origins = {slides: ":".join(origin_of(mark, open_store(stores[s])) for s in slides) for slides in wanted}
    files = {slides: result_file(folder, file_name(slides)) for slides in wanted}
    width = encoder.config.width
    is_kept = lambda s: load_result(files[s], origins[s], width, with_tokens=keep_tokens) is not None
    mesh = current_mesh()
    todo = mesh.from_first(lambda: [s for s in wanted if not is_kept(s)])[mesh.data_part]
    encoder = encoder.eval().to(pick_device(config.device))
    for slides in track(todo, "encode slides") if todo else ():
        pieces = sequence_pieces(stores, encoder.config.input, slides)
        encoded = encode_slide(encoder, pieces, max(1, config.loader_workers))
        tokens_LD = encoded.tokens_BLD[0]
        if keep_tokens and encoder.group:
            tokens_LD = encoder.group.joined(tokens_LD)
        kept = {"tokens": tokens_LD.cpu().contiguous()} if keep_tokens else {}
        result = SlideResult(file_name(slides), encoded.slide_BD[0].cpu(), len(pieces.rc_L2))
        if encoder.group is None or encoder.group.rank == 0:
            save_result(files[slides], result, origins[slides], kept)
    mesh.of_all(None)  # all files are written
    encoder.cpu()
    return files


def file_name(slides: Slides) -> str:
    """Name a sequence's file by its first slide, which is in no other sequence, because a slide has one patient."""
    return slides[0] if len(slides) == 1 else f"{slides[0]}_and_{len(slides) - 1}_more"


def _read_tensor(file: Path, name: str, share: Callable[[int], range] | None = None) -> Tensor:
    """Return one tensor of a file, or some of its rows, mapped into memory, so that only the parts in use are read."""
    with safe_open(file, "pt") as tensors:
        if share is None:
            return tensors.get_tensor(name)
        rows = tensors.get_slice(name)
        part = share(rows.get_shape()[0])
        return rows[part.start : part.stop]
