"""One frozen survival run with all baselines, looked at from every side."""

import numpy as np
import pandas as pd
import pytest
import torch

from longvit.config import CoxTask, EvaluateConfig, FinetuneConfig, FinetuneOptimiserConfig, SubtypeTask
from longvit.evaluation.evaluate import run as evaluate
from longvit.finetuning.finetune import run
from longvit.finetuning.tile_vectors import averaged_per_tile
from longvit.formats.membership_csv import read_membership
from longvit.model import LongViT
from longvit.tokens.pieces import SlidePieces
from longvit.tokens.read import slide_tokens
from preprocessing.errors import CohortError, ConfigError

NAMES = ("abmil", "mean", "clinical")


@pytest.fixture(scope="module")
def config(cohort, tiny_encoder, tmp_path_factory) -> FinetuneConfig:
    root = tmp_path_factory.mktemp("baselines")
    table = pd.read_csv(cohort.table)
    number = table["case_id"].str[1:].astype(int)
    table["age"] = (50 + 3 * number).where(number != 3)
    table["is_female"] = number % 2
    table.to_csv(root / "dataset.csv", index=False)
    return FinetuneConfig(
        stores=cohort.stores,
        table=root / "dataset.csv",
        splits=cohort.splits,
        out=root / "run",
        task=CoxTask(),
        encoder=tiny_encoder,
        trained_blocks=0,
        shuffles=1,
        baselines=NAMES,
        optimiser=FinetuneOptimiserConfig(epochs=1),
        loader_workers=0,
        device="cpu",
    )


@pytest.fixture(scope="module")
def finished(config) -> FinetuneConfig:
    run(config)
    return config


def table_of(config: FinetuneConfig, name: str = "") -> pd.DataFrame:
    return pd.read_csv(config.out / (f"baselines/{name}" if name else "") / "predictions.csv")


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_predicts_the_patients_parts_and_controls_of_the_model(finished, name):
    known = ["patient_id", "slide_id", "fold", "split", "time", "event", "shuffled"]
    theirs, ours = table_of(finished, name), table_of(finished)
    pd.testing.assert_frame_equal(theirs[known], ours[known])
    risk = theirs.loc[theirs["shuffled"].isna(), "risk"]
    assert np.isfinite(theirs["risk"]).all()
    assert risk.std() > 0
    assert not np.allclose(risk, theirs.loc[theirs["shuffled"].notna(), "risk"])


def test_evaluation_finds_them_by_itself_and_says_what_they_are(finished, tmp_path):
    metrics = evaluate(EvaluateConfig(predictions=finished.out / "predictions.csv", out=tmp_path)).metrics
    assert [model["name"] for model in metrics["models"]] == sorted(NAMES)
    for model in metrics["models"]:
        assert model["difference"]["pooled"]["c_index"]["low"] is not None
        assert model["pooled"]["c_index"]["shuffled"] is not None
    report = (tmp_path / "report.md").read_text()
    assert "c-index, shuffled labels" in report
    assert "gated attention (ABMIL)" in report
    assert "The model's encoder is frozen: if it pools by the mean" in report
    assert "Age, per 10 years: 1 of 12 patients have no value and get the median" in report


def test_a_finished_baseline_is_not_trained_again(finished):
    files = {path: path.stat().st_mtime_ns for path in (finished.out / "baselines").rglob("fold_*/**/*")}
    expected = table_of(finished, "mean")
    (finished.out / "predictions.csv").unlink()
    (finished.out / "baselines" / "mean" / "predictions.csv").unlink()
    (finished.out / "baselines" / "mean" / "fold_1" / "predictions.csv").unlink()
    run(finished)
    pd.testing.assert_frame_equal(table_of(finished, "mean"), expected)
    again = {path for path, then in files.items() if path.stat().st_mtime_ns != then}
    assert {str(path.relative_to(finished.out / "baselines").parent) for path in again} <= {"mean/fold_1", "mean"}


def test_the_run_writes_down_who_was_where(finished, cohort):
    members = {one.slide_id: one for one in read_membership(finished.out).members}
    assert list(members) == [slide for slides in cohort.slides.values() for slide in slides]
    one = members["P02-1"]
    assert (one.patient_id, one.sha256, one.mpp, one.tile_px) == ("P02", "P02-1", 0.5, 64)
    assert one.parts == {0: ("test",), 1: ("train",)}


@pytest.mark.parametrize(("least", "counts"), [(0.0, {16}), (0.6, {2, 8, 16})])
def test_the_tokens_of_a_tile_are_averaged_whatever_the_order_of_the_sequence(least, counts, save_store, tiny_encoder):
    torch.manual_seed(0)
    mask = np.zeros((32, 32), np.uint8)
    mask[:12, :20], mask[24:26, 2:12] = 1, 1
    source = tiny_encoder.input.model_copy(update={"min_tissue": least})
    encoder = LongViT(tiny_encoder.model_copy(update={"input": source})).eval()
    store = save_store("a", [[3, 1], [0, 2], [0, 0], [1, 1]], overview_mask=mask, grid_shape=(4, 4))
    tiles_nE = averaged_per_tile(encoder, SlidePieces(store, source))
    batch = slide_tokens(store, source)
    with torch.no_grad():
        tokens_LD = encoder(batch)[0]
    side = store.tile_st // source.patch_px
    found = set()
    for tile_E, rc in zip(tiles_nE, store.rc, strict=True):
        of_tile = (batch.rc_BL2[0] // side == torch.from_numpy(rc.astype(np.int64))).all(dim=1)
        found.add(int(of_tile.sum()))
        torch.testing.assert_close(tile_E, tokens_LD[of_tile].mean(dim=0), atol=1e-5, rtol=1e-4)
    assert found == counts


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"task": SubtypeTask()}, ConfigError, "clinical is a baseline for survival only"),
        ({"clinical": "colours.csv"}, CohortError, "there is no column of age, sex or stage"),
        ({"clinical": "strangers.csv"}, CohortError, "no patient of the cohort is in the clinical table"),
    ],
)
def test_a_clinical_baseline_that_cannot_be_fitted_is_refused_before_anything_is_computed(
    config, tmp_path, change, error, says
):
    (tmp_path / "colours.csv").write_text("case_id,colour\nP00,red\n")
    (tmp_path / "strangers.csv").write_text("case_id,age\nZ,50\n")
    change = {key: tmp_path / value if key == "clinical" else value for key, value in change.items()}
    with pytest.raises(error, match=says):
        run(config.model_copy(update=change | {"out": tmp_path / "run"}))
    assert not (tmp_path / "run").exists()
