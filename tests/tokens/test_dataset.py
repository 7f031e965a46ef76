import pickle

import torch
from torch.utils.data import DataLoader

from longvit.config import PixelInput
from longvit.tokens import SlideDataset, TokenBatch
from longvit.tokens.read import slide_tokens
from preprocessing.store.store import find_stores, open_store

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
