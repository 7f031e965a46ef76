"""A fold from stores to predictions, with each way to pool, fuse, freeze and lose."""

import pandas as pd
import pytest
import torch

from longvit.config import CoxTask, FinetuneConfig, NllTask, SubtypeTask
from longvit.finetuning.finetune import run
from longvit.model.predictor import load_model
from longvit.tokens.sequences import read_tokens
from preprocessing.store.store import find_stores

CASES = {
    "frozen, attention, early": {"trained_blocks": 0, "pooling": "attention", "fusion": "early", "task": CoxTask()},
    "frozen, mean, early, nll": {"trained_blocks": 0, "fusion": "early", "task": NllTask()},
    "one block, attention": {
        "trained_blocks": 1,
        "pooling": "attention",
        "task": SubtypeTask(class_weights="balanced"),
    },
    "full, early, patience": {"fusion": "early", "select": "best_val", "patience": 1, "task": SubtypeTask()},
}


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_the_saved_model_gives_the_predictions_of_its_fold_from_the_stores(config: FinetuneConfig, values):
    config = config.model_copy(update={"folds": (1,)} | values)
    table = pd.read_csv(run(config), dtype={"patient_id": str})
    early = config.fusion == "early"
    assert (table.loc[table["patient_id"] == "P07", "slide_id"].tolist()) == (
        ["P07-0;P07-1"] if early else ["P07-0", "P07-1"]
    )
    model, stores = load_model(config.out / "fold_1" / "model.safetensors"), find_stores(config.stores)
    for _, row in table.iterrows():
        tokens = read_tokens(stores, config.encoder.input, tuple(row["slide_id"].split(";")))
        with torch.no_grad():
            expected = model.task.predictions(model(tokens)[0], model.classes)
        assert row[list(expected)].to_dict() == pytest.approx(expected, abs=1e-4)
