import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from longvit.config import PixelInput
from longvit.tokens import SlideDataset, TokenBatch
from longvit.tokens.dataset import find_stores
from longvit.tokens.read import slide_tokens
from preprocessing.errors import StoreError
from preprocessing.store import open_store

SOURCE = PixelInput(patch_px=32)


def test_item_i_is_slide_i(cohort):
    stores = list(find_stores(cohort.stores).values())[:3]
    dataset = SlideDataset(stores, SOURCE)
    assert len(dataset) == 3
    for batch, path in zip([dataset[i] for i in range(3)], stores, strict=True):
        assert torch.equal(batch.x, slide_tokens(open_store(path), SOURCE).x)


def test_it_feeds_a_loader_with_a_worker_of_its_own(cohort):
    dataset = SlideDataset(list(find_stores(cohort.stores).values())[:3], SOURCE)
    (batch,) = DataLoader(dataset, batch_size=3, num_workers=1, collate_fn=TokenBatch.collate)
    assert batch.lengths.tolist() == [dataset[i].lengths.item() for i in range(3)]
    assert len(pickle.dumps(dataset)) < 2000


def test_stores_are_found_by_slide_id_in_order(cohort):
    stores = find_stores(cohort.stores)
    assert list(stores) == sorted(slide for slides in cohort.slides.values() for slide in slides)
    assert all(open_store(path).slide_id == slide_id for slide_id, path in stores.items())


def test_half_written_stores_and_other_files_are_no_stores(save_store, tmp_path):
    save_store("a.b", [[0, 0]])
    (tmp_path / ".c.zarr.partial").mkdir()
    (tmp_path / "notes.zarr").write_text("")
    assert list(find_stores(tmp_path)) == ["a.b"]


@pytest.mark.parametrize(("name", "sentence"), [("", "there are no stores"), ("none", "folder of stores does not")])
def test_a_folder_without_stores_is_refused(tmp_path, name, sentence):
    with pytest.raises(StoreError, match=sentence):
        find_stores(tmp_path / name)
