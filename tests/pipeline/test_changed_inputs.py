"""The same command on changed inputs, for every verb: refused, or done again and named; unchanged, it does nothing."""

import shutil
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from longvit.config import EmbeddingInput
from longvit.finetuning import crossvalidation
from longvit.model import LongViT, save_encoder
from longvit.runs.input_hashes import differences, read_inputs
from preprocessing.errors import ConfigError
from preprocessing.store.features import add_embeddings
from preprocessing.store.store import open_store

CHANGES: dict[str, dict[str, Callable]] = {
    "pretrain": {
        r"1 store is changed: P00-0 \(source\)": lambda lab: lab.change_store("P00-0"),
        r"1 store is gone: P11-0": lambda lab: shutil.rmtree(lab.stores / "P11-0.zarr"),
    },
    "split": {r"table table\.csv has changed": lambda lab: lab.swap_labels()},
    "finetune": {
        r"table table\.csv has changed": lambda lab: lab.swap_labels(),
        r"splits splits_1\.csv has changed": lambda lab: shutil.copy(
            lab.splits / "splits_0.csv", lab.splits / "splits_1.csv"
        ),
        r"1 store is changed: P00-0 \(source\)": lambda lab: lab.change_store("P00-0"),
    },
}


@pytest.mark.parametrize("verb", CHANGES)
def test_what_learns_refuses_changed_inputs_and_starts_again_with_overwrite(lab, verb, listing, capsys):
    assert lab.run(verb) == 0
    before = listing(lab.root / verb)
    assert lab.run(verb) == 0
    assert capsys.readouterr().err.count("nothing to do") == 1
    assert listing(lab.root / verb) == before
    for sentence, change in CHANGES[verb].items():
        kept = {path: path.with_name(f"kept_{path.name}") for path in (lab.stores, lab.splits)}
        for path, copy in kept.items():
            shutil.copytree(path, copy)
        table = lab.table.read_bytes()
        change(lab)
        with pytest.raises(ConfigError, match=sentence) as error:
            lab.run(verb)
        assert "have changed since 20" in error.value.what
        assert "--overwrite" in error.value.fix
        assert listing(lab.root / verb) == before
        for path, copy in kept.items():
            shutil.rmtree(path)
            copy.rename(path)
        lab.table.write_bytes(table)
    next(iter(CHANGES[verb].values()))(lab)
    assert lab.run(verb, "--overwrite") == 0
    assert {name: content for name, (_, content) in listing(lab.root / verb).items()} != {
        name: content for name, (_, content) in before.items()
    }


def test_a_run_that_was_stopped_refuses_swapped_labels_too(lab, monkeypatch):
    trained = []
    train = crossvalidation.train_job

    def stop(job, experiment, read=None):
        trained.append(job)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(job, experiment, read)

    monkeypatch.setattr(crossvalidation, "train_job", stop)
    with pytest.raises(KeyboardInterrupt):
        lab.run("finetune")
    lab.swap_labels()
    with pytest.raises(ConfigError, match=r"table table\.csv has changed"):
        lab.run("finetune")


def test_encode_adds_new_slides_and_repeats_changed_ones(lab, listing, capsys):
    (lab.stores / "P11-0.zarr").rename(lab.root / "P11-0.zarr")
    assert lab.run("encode") == 0
    before = listing(lab.root / "encode")
    assert lab.run("encode") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert listing(lab.root / "encode") == before
    (lab.root / "P11-0.zarr").rename(lab.stores / "P11-0.zarr")
    lab.change_store("P00-0")
    assert lab.run("encode") == 0
    said = capsys.readouterr().err
    assert "1 store is changed: P00-0 (source)" in said
    assert "1 store is new: P11-0" in said
    after = listing(lab.root / "encode")
    again = {name for name in after if name.startswith("slides/") and after[name] != before.get(name)}
    assert again == {"slides/P00-0.safetensors", "slides/P11-0.safetensors"}
    with pytest.raises(ConfigError, match=r"other settings \(keep_tokens\)"):
        lab.run("encode", "--keep-tokens")


def test_encode_refuses_another_encoder(lab, tiny_encoder):
    assert lab.run("encode") == 0
    save_encoder(lab.encoder, LongViT(tiny_encoder.model_copy(update={"depth": 1})))
    with pytest.raises(ConfigError, match=r"checkpoint encoder\.safetensors has changed"):
        lab.run("encode")
    assert lab.run("encode", "--overwrite") == 0


def test_predict_adds_new_slides_and_repeats_changed_ones(trained, listing, capsys):
    lab, new, table = trained, trained.root / "new", trained.root / "predict" / "predictions.csv"
    (new / "P09-0.zarr").rename(lab.root / "P09-0.zarr")
    assert lab.run("predict") == 0
    before, rows = listing(lab.root / "predict"), table.read_text().splitlines()
    assert lab.run("predict") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert listing(lab.root / "predict") == before
    (lab.root / "P09-0.zarr").rename(new / "P09-0.zarr")
    assert lab.run("predict") == 0
    assert "1 store is new: P09-0" in capsys.readouterr().err
    assert table.read_text().splitlines()[: len(rows)] == rows
    marked = pd.read_csv(table, dtype=str).assign(p_LUAD="0.123")
    marked.to_csv(table, index=False)
    lab.change_store("P08-0", "new")
    assert lab.run("predict") == 0
    assert "1 store is changed: P08-0 (source)" in capsys.readouterr().err
    assert (pd.read_csv(table, dtype=str).set_index("slide_id")["p_LUAD"] == "0.123").to_dict() == {
        "P08-0": False,
        "P09-0": True,
    }
    assert lab.run("finetune", "--overwrite", "--seed", "1") == 0
    with pytest.raises(ConfigError, match=r"fold_0 model\.safetensors has changed"):
        lab.run("predict")


def test_explain_adds_new_slides_and_repeats_changed_ones(trained, listing, capsys):
    lab, new, out = trained, trained.root / "new", trained.root / "explain"
    (new / "P09-0.zarr").rename(lab.root / "P09-0.zarr")
    assert lab.run("explain") == 0
    before = listing(out)
    assert lab.run("explain") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert listing(out) == before
    (lab.root / "P09-0.zarr").rename(new / "P09-0.zarr")
    assert lab.run("explain") == 0
    after = listing(out)
    assert {name: entry for name, entry in after.items() if "P08-0/" in name} == {
        name: entry for name, entry in before.items() if "P08-0/" in name
    }
    assert "P09-0/scores.csv" in after
    lab.change_store("P08-0", "new")
    capsys.readouterr()
    assert lab.run("explain") == 0
    assert "1 store is changed: P08-0 (source)" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"other settings \(rank\)"):
        lab.run("explain", "--rank")
    assert lab.run("explain", "--rank", "--overwrite") == 0


def test_evaluate_computes_again_and_names_what_changed(trained, capsys):
    assert trained.run("evaluate") == 0
    assert "since" not in capsys.readouterr().err
    predictions = trained.root / "finetune" / "predictions.csv"
    table = pd.read_csv(predictions, dtype=str, keep_default_na=False)
    table["label"] = table["label"].map({"LUAD": "LUSC", "LUSC": "LUAD"})
    table.to_csv(predictions, index=False)
    assert trained.run("evaluate") == 0
    assert "changed: predictions" in capsys.readouterr().err


def test_features_that_a_run_reads_are_part_of_its_identity_and_others_are_not(lab):
    vectors = np.ones((20, 4), np.float32)
    store = lab.stores / "P00-0.zarr"
    n = len(open_store(store))
    add_embeddings(store, "uni", vectors[:n], {"weights": "1"})
    source, path = EmbeddingInput(encoder="uni", dim=4), {"P00-0": store}
    then, pixels = read_inputs({}, path, source), read_inputs({}, path)
    add_embeddings(store, "other", vectors[:n], {})
    assert read_inputs({}, path, source) == then
    shutil.rmtree(store / "embeddings" / "uni")
    add_embeddings(store, "uni", vectors[:n], {"weights": "2"})
    assert differences(then, read_inputs({}, path, source)).stores == ["1 store is changed: P00-0 (features)"]
    assert read_inputs({}, path) == pixels


def test_a_thousand_stores_are_compared_in_a_fifth_of_a_second(lab, tmp_path):
    stores = {}
    for i in range(1000):
        stores[str(i)] = tmp_path / "many" / str(i) / "P00-0.zarr"
        (stores[str(i)] / "rc").mkdir(parents=True)
        for name in ("zarr.json", "rc/zarr.json"):
            shutil.copy(lab.stores / "P00-0.zarr" / name, stores[str(i)] / name)
    seconds = []
    for _ in range(12):
        begun = time.process_time()
        inputs = read_inputs({}, stores)
        differences(inputs, inputs)
        seconds.append(time.process_time() - begun)
    assert min(seconds) < 0.2
