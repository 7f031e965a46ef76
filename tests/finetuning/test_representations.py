import pytest
import torch
from torch.testing import assert_close

from longvit.config import CoxTask
from longvit.finetuning import representations
from longvit.finetuning.representations import file_name, sequence_reader
from longvit.model import LongViT
from longvit.model.predictor import SlideModel
from longvit.tokens import TokenBatch
from longvit.tokens.sequences import read_tokens
from preprocessing.store.store import find_stores

WANTED = [("P00-0",), ("P02-0", "P02-1")]


@pytest.fixture
def stores(cohort):
    return find_stores(cohort.stores)


@pytest.fixture
def frozen(config):
    return config.model_copy(update={"trained_blocks": 0})


def new_model(tiny_encoder, pooling: str, seed: int = 0) -> SlideModel:
    torch.manual_seed(seed)
    return SlideModel(LongViT(tiny_encoder), CoxTask(), (), pooling).eval()


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Lengths of the sequences that are encoded from now on."""
    lengths, encode = [], representations.encode_slide

    def counted(encoder, pieces, threads):
        lengths.append(len(pieces.rc_L2))
        return encode(encoder, pieces, threads)

    monkeypatch.setattr(representations, "encode_slide", counted)
    return lengths


@pytest.mark.parametrize("pooling", ["encoder", "attention"])
def test_what_a_frozen_encoder_makes_of_a_sequence_is_what_the_model_makes_of_its_tokens(
    tiny_encoder, frozen, stores, pooling
):
    model = new_model(tiny_encoder, pooling)
    read = sequence_reader(model, WANTED, stores, frozen)
    for slides in WANTED:
        tokens = read_tokens(stores, tiny_encoder.input, slides)
        assert_close(read(slides), model.encode(tokens).detach(), rtol=1e-4, atol=1e-5)
        assert read(slides).ndim == (2 if pooling == "encoder" else 3)


@pytest.mark.parametrize("pooling", ["encoder", "attention"])
def test_a_sequence_is_encoded_once_by_the_same_weights_from_the_same_stores(
    tiny_encoder, frozen, stores, pooling, encoded, copy_store, tmp_path
):
    read = sequence_reader(new_model(tiny_encoder, pooling), WANTED, stores, frozen)
    assert len(encoded) == 2
    again = sequence_reader(new_model(tiny_encoder, pooling), WANTED, stores, frozen)
    assert len(encoded) == 2
    assert all(torch.equal(read(slides), again(slides)) for slides in WANTED)
    sequence_reader(new_model(tiny_encoder, pooling, seed=1), WANTED, stores, frozen)
    assert len(encoded) == 4
    other = copy_store(stores["P01-0"], tmp_path / "P02-1.zarr")
    sequence_reader(new_model(tiny_encoder, pooling, 1), WANTED, stores | {"P02-1": other}, frozen)
    assert len(encoded) == 5


def test_slides_of_a_joined_sequence_see_each_other(tiny_encoder, frozen, stores):
    far_sighted = tiny_encoder.model_copy(update={"segment_lengths": (16, 1024)})
    wanted = [("P02-0",), ("P02-0", "P02-1")]
    read = sequence_reader(new_model(far_sighted, "attention"), wanted, stores, frozen)
    alone, joined = read(("P02-0",)), read(("P02-0", "P02-1"))
    assert joined.shape[1] > alone.shape[1]
    assert not torch.allclose(joined[:, : alone.shape[1]], alone, atol=1e-3)


def test_tokens_of_frozen_encoders_are_read_when_they_are_needed(tiny_encoder, frozen, stores):
    read = sequence_reader(new_model(tiny_encoder, "attention"), WANTED, stores, frozen)
    (frozen.out / "tokens" / "slides" / "P00-0.safetensors").unlink()
    assert read(WANTED[1]).shape[0] == 1
    with pytest.raises(FileNotFoundError):
        read(WANTED[0])


def test_without_a_frozen_encoder_sequences_are_read_from_their_stores(tiny_encoder, config, stores):
    read = sequence_reader(new_model(tiny_encoder, "attention"), WANTED, stores, config)
    assert isinstance(read(WANTED[0]), TokenBatch)
    lengths = [read((slide,)).mask_BL.shape[1] for slide in WANTED[1]]
    assert read(WANTED[1]).mask_BL.shape == (1, sum(lengths))
    assert not config.out.exists()


def test_names_of_files_stay_short_however_many_slides_there_are():
    assert [file_name(slides) for slides in WANTED] == ["P00-0", "P02-0_and_1_more"]
