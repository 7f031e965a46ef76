import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from longvit.cohort.slide_labels import LabelledSlides, read_labelled
from longvit.config import EmbeddingInput, PixelInput, ProbeConfig
from longvit.model import load_encoder
from longvit.pretraining.pretrain import run
from longvit.pretraining.probe import Probe, chance_error, evenly, held_out_auroc, spread_tokens
from longvit.tokens.read import slide_tokens
from preprocessing.store.features import add_embeddings
from preprocessing.store.store import find_stores, open_store

TASK = ProbeConfig(every=2, folds=3, neighbours=3)


def labelled(classes: int, patients: int, slides: int = 1) -> LabelledSlides:
    names = [f"p{i:03d}" for i in range(patients) for _ in range(slides)]
    return LabelledSlides([], names, [f"c{int(name[1:]) % classes}" for name in names])


def auroc(vectors: np.ndarray, of: LabelledSlides, folds: int = 3) -> float:
    return held_out_auroc(vectors, of, LogisticRegression(max_iter=5000), folds, 0)


@pytest.mark.parametrize("classes", [2, 3])
def test_vectors_that_tell_the_classes_have_an_auroc_of_1_and_noise_about_a_half(classes):
    rng = np.random.default_rng(0)
    of = labelled(classes, 120)
    noise = rng.normal(size=(120, 4))
    told = noise + 20 * np.eye(4)[[int(name[1]) for name in of.labels]]
    assert auroc(told, of) == 1.0
    assert auroc(noise, of) == pytest.approx(0.5, abs=0.15)


def test_a_patient_is_never_predicted_from_other_slides_of_that_patient():
    rng = np.random.default_rng(0)
    of = labelled(2, 60, slides=4)
    faces = np.repeat(rng.normal(size=(60, 59)), 4, axis=0)  # tells the patient, and nothing of the class
    assert auroc(faces, of, folds=5) == pytest.approx(0.5, abs=0.2)


def test_a_patient_counts_once_whatever_the_number_of_slides():
    # Ten slides of one patient say the wrong class; were slides counted, the AUROC would be far lower.
    names = [f"p{i}" for i in range(20)] + ["q"] * 10
    of = LabelledSlides([], names, ["xy"[i % 2] for i in range(20)] + ["x"] * 10)
    vectors = np.array([[5.0 * (i % 2)] for i in range(20)] + [[5.0]] * 10)
    assert auroc(vectors, of, folds=5) > 0.9


def test_the_standard_error_is_that_of_scores_drawn_blindly():
    of = labelled(2, 40, slides=2)
    truth = np.arange(40) % 2
    blind = [roc_auc_score(truth, np.random.default_rng(seed).random(40)) for seed in range(1000)]
    assert chance_error(of) == pytest.approx(np.std(blind), rel=0.1)


@given(n=st.integers(1, 200), most=st.integers(1, 200))
def test_tiles_are_spread_evenly_over_the_slide(n, most):
    chosen = evenly(n, most)
    assert len(chosen) == min(n, most)
    assert chosen[0] == 0
    assert chosen[-1] < n
    steps = np.diff(chosen)
    assert len(steps) == 0 or 1 <= steps.min() <= steps.max() <= steps.min() + 1


def test_a_slide_with_few_tokens_is_read_whole(cohort):
    store = open_store(next(iter(find_stores(cohort.stores).values())))
    source = PixelInput(patch_px=16)
    whole, read = slide_tokens(store, source), spread_tokens(store, source, 10_000)
    assert torch.equal(read.x, whole.x)
    assert torch.equal(read.rc_BL2, whole.rc_BL2)


@pytest.mark.parametrize(("most", "tiles"), [(32, 2), (33, 2), (1, 1)])
def test_of_a_large_slide_whole_tiles_are_read(cohort, most, tiles):
    store = open_store(next(iter(find_stores(cohort.stores).values())))
    whole, read = (spread_tokens(store, PixelInput(patch_px=16), most) for most in (10_000, most))
    assert read.x.shape[1] == 16 * tiles
    at = {tuple(rc): x for rc, x in zip(whole.rc_BL2[0].tolist(), whole.x[0], strict=True)}
    assert all(torch.equal(at[tuple(rc)], x) for rc, x in zip(read.rc_BL2[0].tolist(), read.x[0], strict=True))


def test_embeddings_are_read_a_token_a_tile(save_store):
    store = save_store("s", [[1, 0], [0, 1], [2, 2]])
    add_embeddings(store.path, "e", np.arange(6, dtype=np.float32).reshape(3, 2), {})
    read = spread_tokens(open_store(store.path), EmbeddingInput(encoder="e", dim=2), 2)
    assert read.rc_BL2[0].tolist() == [[0, 1], [1, 0]]
    assert read.x[0].tolist() == [[2, 3], [0, 1]]


def test_a_run_is_probed_before_it_starts_every_so_many_epochs_and_at_its_end(config, cohort):
    config = config.model_copy(update={"probe": TASK.model_copy(update={"table": cohort.table})})
    path = run(config)
    metrics = pd.read_csv(config.out / "metrics.csv").set_index("epoch")
    for name in ("probe_knn", "probe_linear"):
        assert metrics[name].dropna().index.tolist() == [-1, 1, 2]
        assert metrics[name].dropna().between(0, 1).all()
    assert "linear probe" in (config.out / "notes.txt").read_text()
    vectors = whole_slides(load_encoder(path), cohort)
    of = read_labelled(config.probe, find_stores(cohort.stores))
    assert metrics["probe_linear"][2] == pytest.approx(auroc(vectors, of))  # what was probed is what is kept


def whole_slides(encoder: torch.nn.Module, cohort) -> np.ndarray:
    source = encoder.config.input
    tokens = [slide_tokens(open_store(path), source) for path in find_stores(cohort.stores).values()]
    with torch.no_grad():
        return torch.cat([encoder.eval().represent(slide) for slide in tokens]).double().numpy()


def test_probing_leaves_no_trace_in_the_training(config, cohort, tmp_path):
    probe = TASK.model_copy(update={"table": cohort.table, "every": 1})
    probed = run(config.model_copy(update={"probe": probe}))
    plain = run(config.model_copy(update={"out": tmp_path / "plain"}))
    assert probed.read_bytes() == plain.read_bytes()


def test_two_kinds_of_slide_are_told_apart_by_k_nn(start, config, cohort):
    config = config.model_copy(update={"probe": TASK.model_copy(update={"table": cohort.table})})
    probe = Probe(config, read_labelled(config.probe, find_stores(cohort.stores)))
    module = start(config)
    module.represent = lambda slide: slide.x.float().mean(dim=(0, 1))[None, ::64]  # colour, which the classes differ in
    found = probe.measure(module)
    assert found["probe_knn"] == found["probe_linear"] == 1.0
    assert found["probe_effective_rank"] > 1
