"""A slide in pieces is the slide at once."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from longvit.config import EmbeddingInput, LearnedPosition, SinCosPosition
from longvit.encoding.results import SlideResult, load_result, save_result
from longvit.encoding.slide import embed_slide, encode_slide
from longvit.model import LongViT
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.read import slide_tokens
from preprocessing import add_embeddings
from preprocessing.errors import StoreError
from preprocessing.store.store import open_store

RC = [[3, 1], [0, 2], [0, 0], [2, 4], [2, 0]]
PER_TILE = 16


@pytest.fixture(params=["sincos", "learned", "class token"])
def encoder(request, tiny_encoder) -> LongViT:
    torch.manual_seed(0)
    position = LearnedPosition(grid=4) if request.param == "learned" else SinCosPosition()
    more = {"class_token": True, "final_norm": "both", "pooling": "class"} if request.param == "class token" else {}
    return LongViT(tiny_encoder.model_copy(update={"position": position, **more})).eval()


@pytest.mark.parametrize("tokens", [1, 2 * PER_TILE, 4 * PER_TILE, 10**6])
@pytest.mark.parametrize("threads", [1, 3])
def test_embedding_in_pieces_equals_embedding_at_once(encoder, save_store, tokens, threads):
    store, source = save_store("S", RC), encoder.config.input
    counts = []
    in_pieces = embed_slide(encoder, SlidePieces(store, source, tokens), threads, counts.append)
    assert_close(in_pieces, encoder.embed(slide_tokens(store, source)).detach(), rtol=1e-5, atol=1e-6)
    assert sum(counts) == len(RC) * PER_TILE
    assert max(counts) <= max(tokens, PER_TILE)


def test_a_slide_in_pieces_has_the_vectors_of_the_slide_at_once(encoder, save_store):
    store, source = save_store("S", RC), encoder.config.input
    tokens_BLD, slide_BD = encode_slide(encoder, SlidePieces(store, source, PER_TILE))
    batch = slide_tokens(store, source)
    with torch.no_grad():
        assert_close(tokens_BLD, encoder(batch), rtol=1e-4, atol=1e-5)
        assert_close(slide_BD, encoder.represent(batch), rtol=1e-4, atol=1e-5)


def test_tile_embeddings_come_in_pieces_too(save_store, tiny_encoder):
    path = save_store("S", RC).path
    add_embeddings(path, "uni", np.random.default_rng(0).normal(size=(len(RC), 6)).astype(np.float16), {})
    source = EmbeddingInput(encoder="uni", dim=6)
    encoder = LongViT(tiny_encoder.model_copy(update={"input": source})).eval()
    pieces = SlidePieces(open_store(path), source, tokens=2)
    assert len(list(pieces.ahead(1))) == 3
    expected = encoder.embed(slide_tokens(open_store(path), source)).detach()
    assert_close(embed_slide(encoder, pieces), expected, rtol=1e-5, atol=1e-6)


def test_pieces_are_in_the_type_of_the_stream_of_tokens(encoder, save_store):
    store = save_store("S", RC)
    exact = encode_slide(encoder, SlidePieces(store, encoder.config.input))
    near = encode_slide(encoder.narrowed(torch.bfloat16), SlidePieces(store, encoder.config.input))
    assert near.tokens_BLD.dtype == torch.float32
    assert (near.slide_BD - exact.slide_BD).norm() < 0.02 * exact.slide_BD.norm()
    whole = encode_slide(encoder.bfloat16(), SlidePieces(store, encoder.config.input))
    assert whole.tokens_BLD.dtype == torch.bfloat16


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "metadata of nonsense": lambda path: save_file(load_file(path), path, {"longvit_encoded": "[1,2]"}),
    "no metadata": lambda path: save_file(load_file(path), path),
    "deep metadata": lambda path: save_file(load_file(path), path, {"longvit_encoded": "[" * 10**5}),
    "another width": lambda path: _with(path, slide=torch.zeros(9)),
    "integers": lambda path: _with(path, slide=torch.zeros(8, dtype=torch.int32)),
    "nan": lambda path: _with(path, slide=torch.full((8,), torch.nan)),
    "no vector": lambda path: _with(path, other=torch.zeros(8)),
    "fewer tokens": lambda path: _with(path, slide=torch.zeros(8), tokens=torch.zeros(4, 8)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def _with(path, **tensors) -> None:
    with safe_open(path, "pt") as file:
        save_file(tensors, path, file.metadata())


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_result_that_is_damaged_is_computed_again(tmp_path, damage):
    path, result = tmp_path / "S.safetensors", SlideResult("S", torch.arange(8.0), 5)
    save_result(path, result, "origin", {"tokens": torch.zeros(5, 8)})
    found = load_result(path, "origin", 8, with_tokens=True)
    assert torch.equal(found.vector_D, result.vector_D)
    assert (found.slide_id, found.n_tokens) == ("S", 5)
    assert load_result(path, "another", 8) is None
    damage(path)
    assert load_result(path, "origin", 8, with_tokens=True) is None


def test_a_damaged_tile_is_refused_by_name_whichever_thread_reads_it(save_store, tiny_encoder):
    store = save_store("S", RC)
    shard = max((store.path / "tiles").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    shard.write_bytes(bytes(len(shard.read_bytes())))
    with pytest.raises(StoreError) as error:
        encode_slide(LongViT(tiny_encoder).eval(), SlidePieces(open_store(store.path), tiny_encoder.input), threads=2)
    assert "S.zarr" in str(error.value.where)
