"""`longvit encode`: stores -> slide vectors, what a second start does, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from longvit.cli.app import run_command
from longvit.config import EmbeddingInput, EncoderConfig, PixelInput, SubtypeTask
from longvit.model import PRESETS, LongViT, save_encoder
from longvit.model.predictor import SlideModel, save_model
from longvit.tokens.read import StoreScale, slide_tokens
from preprocessing.errors import CheckpointError, ConfigError, PipelineError, StoreError
from preprocessing.jpeg.codec import Jpeg
from preprocessing.store.features import add_embeddings
from preprocessing.store.schema import FIRST, Source, StoreAttributes
from preprocessing.store.store import open_store, problems
from preprocessing.store.writer import finish_store, write_arrays

SLIDES = ["P00-0", "P02-0", "P02-1"]


@pytest.fixture
def stores(cohort, tmp_path) -> Path:
    """Three stores, which may be changed."""
    for slide in SLIDES:
        shutil.copytree(cohort.stores / f"{slide}.zarr", tmp_path / "stores" / f"{slide}.zarr")
    return tmp_path / "stores"


@pytest.fixture
def encoder(tiny_encoder, tmp_path) -> LongViT:
    torch.manual_seed(1)
    encoder = LongViT(tiny_encoder).eval()
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    return encoder


def encode(stores: Path, *more: str, checkpoint: str | None = "encoder.safetensors") -> int:
    """Run the verb into `out` beside the stores."""
    given = ["--checkpoint", str(stores.parent / checkpoint)] if checkpoint else []
    out = str(stores.parent / "out")
    return run_command(["encode", "--stores", str(stores), "--out", out, "--device", "cpu", *given, *more])


def table(stores: Path) -> pd.DataFrame:
    return pd.read_csv(stores.parent / "out" / "representations.csv", index_col="slide_id")


def vectors(stores: Path) -> np.ndarray:
    return table(stores).filter(regex=r"^v\d+$").to_numpy(np.float32)


def damage(store: Path) -> None:
    shards = [path for path in (store / "tiles").rglob("*") if path.is_file() and path.name != "zarr.json"]
    shards[0].write_bytes(bytes(shards[0].stat().st_size))


def test_slides_are_encoded_as_the_execution_says(stores, encoder, executions):
    assert encode(stores, "--execution.heads-at-once", "1") == 0
    assert {one.heads_at_once for one in executions} == {1}


def test_every_slide_has_a_row_with_the_vector_that_the_encoder_gives(stores, encoder):
    assert encode(stores) == 0
    assert list(table(stores).index) == SLIDES
    for slide, vector in zip(SLIDES, vectors(stores), strict=True):
        batch = slide_tokens(open_store(stores / f"{slide}.zarr"), encoder.config.input)
        with torch.no_grad():
            assert_close(torch.from_numpy(vector), encoder.represent(batch)[0], rtol=1e-4, atol=1e-5)
        assert table(stores).loc[slide, "n_tokens"] == batch.mask_BL.sum()
    starts = json.loads((stores.parent / "out" / "run.json").read_text())
    assert [start["verb"] for start in starts] == ["encode"]


def test_the_table_gives_back_every_bit_of_the_vectors(stores, encoder):
    encode(stores)
    for slide, vector in zip(SLIDES, vectors(stores), strict=True):
        kept = load_file(stores.parent / "out" / "slides" / f"{slide}.safetensors")
        assert list(kept) == ["slide"]
        assert np.array_equal(kept["slide"].numpy(), vector)


def test_tokens_are_kept_in_the_order_of_the_sequence_with_their_places(stores, encoder):
    encode(stores, "--keep-tokens")
    for slide in SLIDES:
        kept = load_file(stores.parent / "out" / "slides" / f"{slide}.safetensors")
        batch = slide_tokens(open_store(stores / f"{slide}.zarr"), encoder.config.input)
        assert torch.equal(kept["rc"], batch.rc_BL2[0])
        with torch.no_grad():
            assert_close(kept["tokens"], encoder(batch)[0], rtol=1e-4, atol=1e-5)


def test_one_store_may_be_given_instead_of_a_folder(stores, encoder):
    store, out = stores / f"{SLIDES[1]}.zarr", stores.parent / "out"
    checkpoint = str(stores.parent / "encoder.safetensors")
    assert run_command(["encode", "--stores", str(store), "--out", str(out), "--checkpoint", checkpoint]) == 0
    assert list(table(stores).index) == SLIDES[1:2]


def test_the_folder_of_a_run_may_be_given_for_its_encoder(stores, encoder):
    assert encode(stores, checkpoint=".") == 0


def test_a_second_start_computes_nothing(stores, encoder, listing):
    encode(stores)
    before = listing(stores.parent / "out")
    assert encode(stores) == 0
    after = listing(stores.parent / "out")
    assert {name: content for name, (_, content) in before.items()} == {
        name: content for name, (_, content) in after.items()
    }
    assert all(after[name] == before[name] for name in before if name.startswith("slides/"))


def test_only_what_is_new_is_computed(stores, encoder, cohort, listing):
    encode(stores)
    before = listing(stores.parent / "out" / "slides")
    shutil.copytree(cohort.stores / "P01-0.zarr", stores / "P01-0.zarr")
    encode(stores)
    after = listing(stores.parent / "out" / "slides")
    assert set(after) - set(before) == {"P01-0.safetensors"}
    assert all(after[name] == before[name] for name in before)
    assert list(table(stores).index) == ["P00-0", "P01-0", "P02-0", "P02-1"]
    assert len(json.loads((stores.parent / "out" / "run.json").read_text())) == 2


def test_another_encoder_under_the_same_name_is_refused_and_with_overwrite_computes_all_again(stores, encoder):
    encode(stores)
    before = vectors(stores)
    save_encoder(stores.parent / "encoder.safetensors", LongViT(encoder.config))
    with pytest.raises(ConfigError, match=r"checkpoint encoder\.safetensors has changed"):
        encode(stores)
    encode(stores, "--overwrite")
    assert not np.allclose(vectors(stores), before, rtol=0.1)


def test_a_slide_that_was_tiled_again_is_computed_anew(stores, encoder):
    encode(stores)
    before = vectors(stores)
    document = stores / f"{SLIDES[0]}.zarr" / "zarr.json"
    shutil.rmtree(document.parent)
    shutil.copytree(stores / f"{SLIDES[1]}.zarr", document.parent)
    document.write_text(document.read_text().replace(f'"slide_id": "{SLIDES[1]}"', f'"slide_id": "{SLIDES[0]}"'))
    encode(stores)
    after = vectors(stores)
    assert np.array_equal(after[0], before[1])
    assert np.array_equal(after[1:], before[1:])


def test_a_result_that_was_damaged_is_computed_anew(stores, encoder):
    encode(stores)
    before, result = vectors(stores), stores.parent / "out" / "slides" / f"{SLIDES[0]}.safetensors"
    result.write_bytes(result.read_bytes()[:50])
    assert encode(stores) == 0
    assert np.array_equal(vectors(stores), before)


def test_a_slide_that_cannot_be_read_is_named_and_does_not_stop_the_others(stores, encoder, capsys):
    damage(stores / f"{SLIDES[0]}.zarr")
    assert encode(stores) == 1
    said = capsys.readouterr().err
    assert f"failed: {SLIDES[0]}: " in said
    assert "fix:" in said
    assert list(table(stores).index) == SLIDES[1:]


def test_bfloat16_stays_near_float32(stores, encoder):
    encode(stores)
    exact = vectors(stores)
    shutil.rmtree(stores.parent / "out")
    encode(stores, "--precision", "bf16")
    assert not np.array_equal(vectors(stores), exact)
    assert np.linalg.norm(vectors(stores) - exact) < 0.02 * np.linalg.norm(exact)


def test_a_preset_without_weights_says_so_and_is_the_same_every_time(stores, capsys):
    assert encode(stores, "--preset", "longvit_tiny", checkpoint=None) == 0
    assert "warning: longvit_tiny has random weights" in capsys.readouterr().err
    first = vectors(stores)
    shutil.rmtree(stores.parent / "out")
    encode(stores, "--preset", "longvit_tiny", checkpoint=None)
    assert np.array_equal(vectors(stores), first)


def test_published_weights_are_read_in_their_own_layout(stores, monkeypatch, capsys):
    tiny = EncoderConfig(input=PixelInput(patch_px=16), width=16, depth=1, heads=2)
    monkeypatch.setitem(PRESETS, "tiny_official", tiny)
    theirs = {"input.proj.weight": "patch_embed.proj.weight", "input.proj.bias": "patch_embed.proj.bias"}
    torch.manual_seed(3)
    weights = LongViT(tiny).state_dict()
    state = {f"backbone.{theirs.get(name, name)}": tensor for name, tensor in weights.items()}
    torch.save({"teacher": state}, stores.parent / "published.pth")
    given = ["--preset", "tiny_official", "--official", str(stores.parent / "published.pth")]
    assert encode(stores, *given, checkpoint=None) == 0
    assert "warning" not in capsys.readouterr().err


def test_the_encoder_of_a_finetuned_model_encodes(stores, encoder):
    encode(stores)
    expected = vectors(stores)
    save_model(stores.parent / "model.safetensors", SlideModel(encoder, SubtypeTask(), ("a", "b")))
    assert encode(stores, "--overwrite", checkpoint="model.safetensors") == 0
    assert np.array_equal(vectors(stores), expected)


def without_pixels(store: Path) -> None:
    """Make of a store one of features that were brought without the slide."""
    for name in ("tiles", "crc32c", "tissue", "overview", "overview_mask"):
        shutil.rmtree(store / name)
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"] |= {"arrays": ["rc", "xy_l0"]}
    document["attributes"]["source"] |= {"size": None, "sha256": None}
    (store / "zarr.json").write_text(json.dumps(document))


def test_stores_without_pixels_are_refused_where_pixels_are_needed(stores, encoder):
    for slide in SLIDES:
        without_pixels(stores / f"{slide}.zarr")
    with pytest.raises(StoreError, match="the store has no tiles: it has imported features without pixels") as error:
        encode(stores)
    assert (error.value.where, "longvit tile" in error.value.fix) == (stores / "P00-0.zarr", True)
    assert not (stores.parent / "out").exists()


def test_features_of_stores_without_pixels_are_encoded_as_those_of_stores_with(stores, tiny_encoder):
    features = EmbeddingInput(encoder="uni", dim=6)
    save_encoder(stores.parent / "encoder.safetensors", LongViT(tiny_encoder.model_copy(update={"input": features})))
    for number, slide in enumerate(SLIDES):
        n = len(open_store(stores / f"{slide}.zarr"))
        vectors_of_tiles = np.random.default_rng(number).normal(size=(n, 6)).astype(np.float16)
        add_embeddings(stores / f"{slide}.zarr", "uni", vectors_of_tiles, {})
    assert encode(stores) == 0
    expected = vectors(stores)
    for slide in SLIDES:
        without_pixels(stores / f"{slide}.zarr")
    assert problems(stores / "P00-0.zarr") == []
    assert encode(stores, "--overwrite") == 0
    assert len(expected) == len(SLIDES)
    np.testing.assert_array_equal(vectors(stores), expected)


def test_a_slide_without_tiles_is_left_out_by_name(stores, tiny_encoder, capsys):
    features = EmbeddingInput(encoder="uni", dim=6)
    save_encoder(stores.parent / "encoder.safetensors", LongViT(tiny_encoder.model_copy(update={"input": features})))
    for slide in SLIDES:
        store = open_store(stores / f"{slide}.zarr")
        if slide == SLIDES[0]:
            document = json.loads((store.path / "zarr.json").read_text())["attributes"]
            known = StoreAttributes(**document | {"arrays": FIRST, "source": Source(name="slide.svs")})
            none = {"rc": store.rc[:0], "xy_l0": store.xy_l0[:0]}
            write_arrays(store.path, None, none, store.tile_st, jpeg=Jpeg(level=90, subsampling="444"), shard_tiles=1)
            finish_store(store.path, known)
        add_embeddings(store.path, "uni", np.ones((len(open_store(store.path)), 6), np.float32), {})
    assert encode(stores) == 1
    assert "the slide has no tiles" in capsys.readouterr().err
    assert list(table(stores).index) == SLIDES[1:]


def test_stores_of_another_scale_than_the_encoder_was_trained_at_are_refused(stores, encoder):
    encoder.trained_on = StoreScale(mpp=1.0, tile_px=64)
    save_encoder(stores.parent / "encoder.safetensors", encoder)
    with pytest.raises(StoreError, match=r"encoder\.safetensors was trained on tiles of 64 pixels at 1 um per pixel"):
        encode(stores)
    assert not (stores.parent / "out").exists()


REFUSED = {
    "no encoder": ([], ConfigError, "no encoder is named"),
    "two encoders": (["--checkpoint", "a", "--preset", "longvit_tiny"], ConfigError, "checkpoint or preset, not both"),
    "weights of no shape": (["--checkpoint", "a", "--official", "b"], ConfigError, "need the preset"),
    "unknown preset": (["--preset", "longvit_huge"], CheckpointError, "there is no preset 'longvit_huge'"),
    "no checkpoint there": (["--checkpoint", "gone.safetensors"], ConfigError, "does not exist"),
    "no weights there": (["--preset", "longvit_tiny", "--official", "gone.pth"], ConfigError, "does not exist"),
    "no embeddings": (["--preset", "gigapath_slide_enc12l768d"], StoreError, "no embeddings named 'gigapath'"),
    "no threads": (["--preset", "longvit_tiny", "--loader-workers", "0"], ConfigError, "--loader-workers"),
}


@pytest.mark.parametrize(("given", "kind", "what"), REFUSED.values(), ids=REFUSED)
def test_is_refused_before_anything_is_written(given, kind, what, stores, monkeypatch):
    monkeypatch.chdir(stores.parent)
    with pytest.raises(PipelineError, match=what) as error:
        encode(stores, *given, checkpoint=None)
    assert type(error.value) is kind
    assert error.value.fix
    assert not (stores.parent / "out").exists()


def test_a_folder_with_other_settings_is_refused(stores, encoder, listing):
    encode(stores)
    before = listing(stores.parent / "out")
    with pytest.raises(ConfigError, match="other settings \\(precision\\)"):
        encode(stores, "--precision", "bf16")
    assert listing(stores.parent / "out") == before
