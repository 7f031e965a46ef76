"""A fold from stores to predictions, with each way to pool, fuse, freeze and lose."""

import pandas as pd
import pytest
import torch

from longvit.config import CoxTask, FinetuneConfig, NllTask, SubtypeTask
from longvit.finetuning import site_probe
from longvit.finetuning.finetune import run
from longvit.formats.site_probe_json import read_site_probe
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
    "one block, Reinhard": {"trained_blocks": 1, "stain": "reinhard", "task": SubtypeTask()},
    "frozen, Macenko": {"trained_blocks": 0, "stain": "macenko", "task": SubtypeTask()},
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
    source = model.required_encoder.config.input
    assert source.stain == (config.stain or "none")
    for _, row in table.iterrows():
        tokens = read_tokens(stores, source, tuple(row["slide_id"].split(";")))
        with torch.no_grad():
            expected = model.task.predictions(model(tokens)[0], model.classes)
        assert row[list(expected)].to_dict() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("task", [SubtypeTask(), CoxTask()], ids=["subtype", "cox"])
def test_hospitals_of_the_test_patients_are_probed_once_per_fold(config: FinetuneConfig, tmp_path, monkeypatch, task):
    monkeypatch.setattr(site_probe, "LEAST_PATIENTS", 2)
    table = pd.read_csv(config.table)
    table["hospital"] = table["case_id"].str[1:].astype(int) // 2 % 2
    table.to_csv(tmp_path / "table.csv", index=False)
    values = {"table": tmp_path / "table.csv", "site_column": "hospital", "task": task, "shuffles": 1}
    run(config.model_copy(update=values | {"trained_blocks": 0}))
    assert len(list(config.out.rglob("site_probe.json"))) == 2
    probe = read_site_probe(config.out / "fold_0")  # of four patients, of whom P00 and P03 are censored
    assert (probe.n_patients, probe.site.n_classes, probe.label.n_classes, probe.reason) == (4, 2, 2, None)


def test_a_fold_without_known_hospitals_has_a_reason(config: FinetuneConfig):
    run(config.model_copy(update={"folds": (1,), "trained_blocks": 0}))
    probe = read_site_probe(config.out / "fold_1")
    assert probe.site is None
    assert probe.reason.startswith("no patient's hospital is known")
